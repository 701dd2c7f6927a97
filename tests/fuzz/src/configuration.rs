//! The configuration: any text is read in full or refused with places that are in it, and what is read is
//! printed as a text that reads as the same.

use tidemark_config::Configuration;

pub(crate) fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Configuration::parse(text) {
        Ok(read) => {
            let printed = read.to_string();
            assert_eq!(Configuration::parse(&printed), Ok(read), "{printed}");
        }
        Err(problems) => {
            let lines = text.matches('\n').count() + 1;
            assert!(!problems.is_empty(), "refused for nothing");
            for problem in problems {
                assert!((1..=lines).contains(&problem.line), "{problem:?}");
                let line = text.split('\n').nth(problem.line - 1).unwrap_or_default();
                assert!(problem.column <= line.chars().count() + 1, "{problem:?}");
            }
        }
    }
}

pub(crate) fn files() -> Vec<Vec<u8>> {
    let whole = "\
[volume.data]
device = \"/dev/vg/data\"
area = \"lv:x\"
when-full = \"slow\"
max-write-delay = \"1s\"
hooks = { before-freeze = [\"/q\", \"db\"], timeout = \"3s\" }
[repository.vault]
location = \"s3://bucket/p\"
endpoint = \"https://h\"
password-command = '''pass \"x\"'''
[backup.nightly]
volumes = [\"data\"]
repository = \"vault\"
schedule = \"Mon..Fri 02:30\"
keep = { last = 3, within = \"3d\" }
";
    let wrong =
        "[volume.a]\ndevice = 1\narea = [\"x\",]\n[volume.a]\n[backup.b]\nvolumes = [\"c\"]\n= 3\n";
    let dotted = "daemon.group = \"x\"\nvolume.\"a.b\".device = \"/x\"\n[[volume]]\n";
    [whole, wrong, dotted]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect()
}
