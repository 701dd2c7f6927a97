//! What systemd is told of volumes while it loads its units (systemd.generator(7)).
//!
//! ```text
//! /etc/tidemark/volumes/data.args, with --early  ->  local-fs.target wants tidemark-volume@data.service,
//!                                                    which comes after the devices that it needs
//! /etc/tidemark/tidemark.toml, [backup.nightly]  ->  timers.target wants tidemark-backup@nightly.timer,
//!                                                    which has its calendar
//! ```
//!
//! A generator that fails must not keep a machine from starting: what cannot be read is told to the
//! kernel's log, and left out.

mod schedules;
mod unit_name;

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::argfile::{self, EARLY};
use unit_name::of_device;

/// What a volume needs of its unit where it is presented by the portable transport.
const PORTABLE: &str = "/usr/lib/tidemark/portable.conf";
/// Where packages put units.
const UNITS: &str = "/usr/lib/systemd/system";

/// Arguments of `tidemarkd generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Where units are written
    pub normal: PathBuf,
    /// Where units that go before all others would be written; unused
    pub early: Option<PathBuf>,
    /// Where units that others go before would be written; unused
    pub late: Option<PathBuf>,
    /// Where the configuration is
    #[arg(long, default_value = "/etc/tidemark")]
    pub config_dir: PathBuf,
}

/// Writes units.
pub fn run(args: &GenerateArgs) {
    if let Err(error) = schedules::write(&args.normal, &args.config_dir.join("tidemark.toml")) {
        complain(&error);
    }
    let files = match fs::read_dir(args.config_dir.join("volumes")) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return complain(&format!("the volumes cannot be listed: {error}")),
    };
    for file in files.flatten().map(|file| file.path()) {
        if file.extension() == Some(OsStr::new("args"))
            && let Err(error) = volume(&args.normal, &file)
        {
            complain(&format!("{}: {error}", file.display()));
        }
    }
}

/// Generators have no standard error that anybody reads.
fn complain(what: &str) {
    let line = format!("<4>tidemark-generator: {what}\n");
    if fs::write("/dev/kmsg", &line).is_err() {
        eprint!("{line}");
    }
}

/// The units of one volume.
fn volume(units: &Path, file: &Path) -> io::Result<()> {
    let arguments = argfile::read(file)?;
    let name = file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    if arguments.first().and_then(|first| first.to_str()) != Some(name) {
        return Err(io::Error::other("it is of a volume of another name"));
    }
    let unit = format!("tidemark-volume@{name}.service");
    if may_be_portable(&arguments) {
        link(
            &units.join(format!("{unit}.d")),
            "60-portable.conf",
            Path::new(PORTABLE),
        )?;
    }
    if !arguments.iter().any(|argument| argument == EARLY) {
        return Ok(());
    }
    let devices: Vec<String> = ["--origin", "--area"]
        .iter()
        .filter_map(|option| value(&arguments, option))
        .filter_map(|path| of_device(path.as_ref()))
        .collect();
    let devices = devices.join(" ");
    let mut lines = format!("# Of {}\n[Unit]\n", file.display());
    if !devices.is_empty() {
        // Wanted and not required: the server says what is missing, and the host starts without it.
        lines.push_str(&format!("Wants={devices}\nAfter={devices}\n"));
    }
    write(&units.join(format!("{unit}.d/50-devices.conf")), &lines)?;
    // The unit comes before local-fs-pre.target, but nobody need want that one.
    want(units, "local-fs.target", &unit, "tidemark-volume@.service")
}

/// Whether a volume may be presented as a file, which others see in the host's namespace of mounts only.
fn may_be_portable(arguments: &[OsString]) -> bool {
    let is_device =
        value(arguments, "--origin").is_some_and(|path| Path::new(path).starts_with("/dev"));
    !is_device || value(arguments, "--transport").is_some_and(|asked| asked == "portable")
}

fn value<'a>(arguments: &'a [OsString], option: &str) -> Option<&'a OsString> {
    let at = arguments.iter().position(|argument| argument == option)?;
    arguments.get(at + 1)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    fs::write(path, text.as_bytes())
}

/// Has a target want an instance of a template.
fn want(units: &Path, target: &str, unit: &str, template: &str) -> io::Result<()> {
    let wants = units.join(format!("{target}.wants"));
    link(&wants, unit, &Path::new(UNITS).join(template))
}

fn link(folder: &Path, name: &str, to: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    match symlink(to, folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generated(files: &[(&str, &[&str])]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let config_dir = dir.path().join("etc");
        for (name, arguments) in files {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            let path = config_dir.join(format!("volumes/{name}"));
            argfile::write(&path, &arguments).unwrap();
        }
        let normal = dir.path().join("units");
        fs::create_dir(&normal).unwrap();
        let args = GenerateArgs {
            normal: normal.clone(),
            early: None,
            late: None,
            config_dir,
        };
        run(&args);
        (dir, normal)
    }

    #[test]
    fn an_early_volume_comes_after_its_devices() {
        let early = [
            "data",
            "--origin",
            "/dev/vg/my-data",
            "--area",
            "/dev/vg/a",
            "--early",
        ];
        let (_dir, units) = generated(&[("data.args", &early)]);
        let unit = "tidemark-volume@data.service";
        let conf = fs::read_to_string(units.join(format!("{unit}.d/50-devices.conf"))).unwrap();
        let devices = r"dev-vg-my\x2ddata.device dev-vg-a.device";
        assert!(
            conf.contains(&format!("Wants={devices}\nAfter={devices}\n")),
            "{conf}"
        );
        let wanted = units.join(format!("local-fs.target.wants/{unit}"));
        let template = Path::new(UNITS).join("tidemark-volume@.service");
        assert_eq!(fs::read_link(wanted).unwrap(), template);
    }

    #[test]
    fn others_and_what_makes_no_sense_are_left_out() {
        let (_dir, units) = generated(&[
            ("late.args", &["late", "--origin", "/dev/vg/data"]),
            (
                "another.args",
                &["data", "--origin", "/dev/vg/data", "--early"],
            ),
            ("data.args.new", &["data", "--early"]),
        ]);
        assert_eq!(fs::read_dir(units).unwrap().count(), 0);
        let args = GenerateArgs {
            normal: "/nowhere".into(),
            early: None,
            late: None,
            config_dir: "/nowhere".into(),
        };
        run(&args);
    }

    #[test]
    fn what_may_be_a_file_is_let_out_of_its_sandbox() {
        let (_dir, units) = generated(&[
            ("image.args", &["image", "--origin", "/srv/vm.img"]),
            (
                "device.args",
                &["device", "--origin", "/dev/sdb", "--transport", "portable"],
            ),
            ("late.args", &["late", "--origin", "/dev/vg/data"]),
        ]);
        for name in ["image", "device"] {
            let conf = units.join(format!("tidemark-volume@{name}.service.d/60-portable.conf"));
            assert_eq!(fs::read_link(conf).unwrap(), Path::new(PORTABLE));
        }
        assert!(!units.join("tidemark-volume@late.service.d").exists());
    }

    #[test]
    fn files_on_file_systems_are_waited_for_by_nobody() {
        let early = [
            "data",
            "--origin",
            "/dev/sdb1",
            "--area",
            "/var/lib/area",
            "--early",
        ];
        let (_dir, units) = generated(&[("data.args", &early)]);
        let conf = units.join("tidemark-volume@data.service.d/50-devices.conf");
        let conf = fs::read_to_string(conf).unwrap();
        assert!(conf.contains("After=dev-sdb1.device\n"), "{conf}");
    }
}
