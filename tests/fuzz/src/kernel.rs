//! What the kernel and LVM tell, and the insertion's journal beside it.

use tidemark_agent::{
    host::{
        dm::{self, Line, Sectors, Table},
        lvm::{self, Name},
        mounts::MountTable,
    },
    insertion::reread_journal,
};

use crate::{bytes::number, reads_back};

pub(crate) fn journal(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    strictly(text);
    // Damage must not end at the checksum.
    if let Some((body, _)) = text.rsplit_once("crc32c ") {
        strictly(&summed(body));
    }
}

/// A journal is what we wrote, to the byte, or it is none.
fn strictly(text: &str) {
    if let Some(again) = reread_journal(text) {
        assert_eq!(again, text, "another text was taken for a journal");
    }
}

fn summed(body: &str) -> String {
    format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

pub(crate) fn journals() -> Vec<Vec<u8>> {
    [
        "tidemark insertion 1\nstage inserted\nvolume 07070707070707070707070707070707\n\
         device 253:3 17 2048\nname vg-a%20b%25\nuuid LVM-x\nover 259:1\nbaseline 8 1 2 3\n",
        "tidemark insertion 1\nstage preparing\nvolume 07070707070707070707070707070707\n\
         device 253:3 - 2048\nname v\nuuid \nover -\nbaseline -\n",
    ]
    .map(|body| summed(body).into_bytes())
    .to_vec()
}

pub(crate) fn table(mut bytes: &[u8]) {
    // Counts of the kernel's own are small; a hostile one may be any.
    let count = u32::try_from(number::<4>(&mut bytes)).unwrap_or(0);
    let encode = |table: &Table| table.encode().map(|payload| payload.0.clone());
    let decode = |payload: &[u8]| Table::decode(count, payload);
    let Some(table) = Table::decode(count, bytes) else {
        return;
    };
    assert!(table.0.len() <= bytes.len() / 40, "targets out of nothing");
    assert!(u32::try_from(table.0.len()) == Ok(count));
    let _ = (table.to_string(), table.sectors(), table.lies_over());
    if let Some(payload) = encode(&table) {
        // A load's lengths count from each target, an answer's from the first.
        let again = reads_back(&answer(&table), decode, answer);
        assert_eq!(again, Some(table));
        assert!(payload.len().is_multiple_of(8), "targets out of line");
    }
}

/// The table as the kernel tells it.
fn answer(table: &Table) -> Vec<u8> {
    let mut bytes = table
        .encode()
        .map_or(Vec::new(), |payload| payload.0.clone());
    let (mut at, mut end) = (0, 0);
    for _ in &table.0 {
        let next = bytes.get(at + 20..at + 24).unwrap_or_default();
        let len = u32::from_ne_bytes(next.try_into().unwrap_or_default());
        end += len;
        bytes[at + 20..at + 24].copy_from_slice(&end.to_ne_bytes());
        at = end as usize;
    }
    bytes
}

pub(crate) fn tables() -> Vec<Vec<u8>> {
    let tables = [
        vec![Line::new(0, 8, "linear", "259:7 0")],
        vec![
            Line::new(0, 8, "striped", "2 128 8:1 0 8:2 0"),
            Line::new(8, 99, "crypt", "aes 00ff 0 8:3 0"),
        ],
    ];
    let seed = |lines: Vec<Line>| {
        let count = u32::try_from(lines.len()).unwrap_or(0);
        [&count.to_le_bytes()[..], &answer(&Table(lines))].concat()
    };
    tables.into_iter().map(seed).collect()
}

pub(crate) fn devices(bytes: &[u8]) {
    if let Some(found) = dm::listed(bytes) {
        assert!(
            found.len() <= bytes.len() / 12 + 1,
            "devices out of nothing"
        );
    }
}

pub(crate) fn some_devices() -> Vec<Vec<u8>> {
    let record = |number: u64, next: u32, name: &[u8]| {
        let mut bytes = [&number.to_ne_bytes()[..], &next.to_ne_bytes(), name, &[0]].concat();
        bytes.resize(24, 0);
        bytes
    };
    vec![
        record(0, 0, b""),
        [record(0xfd00, 24, b"vg-a"), record(0xfd01, 0, b"vg-b")].concat(),
    ]
}

pub(crate) fn sectors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(sectors) = Sectors::parse(text) {
        let none = Sectors::default();
        assert_eq!(sectors.since(none), sectors);
        assert_eq!(none.since(sectors), none);
        assert!(sectors.total() >= sectors.written);
    }
}

pub(crate) fn some_sectors() -> Vec<Vec<u8>> {
    [
        "1 2 3 4 5 6 700 8 9 10 11 12 13 1400 15 16 17",
        "1 2 3 4 5 6 7 8 9 10 11",
    ]
    .map(|stat| stat.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn mounts(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(MountTable::parse(bytes).iter().count() <= lines);
}

pub(crate) fn some_mounts() -> Vec<Vec<u8>> {
    [
        "36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
        "37 35 0:44 / /a\\040b rw shared:2 propagate_from:3 - fuse.x none rw\n38 1 8:1 / / ro - xfs\n",
    ]
    .map(|lines| lines.as_bytes().to_vec())
    .to_vec()
}

/// Names from a report become words of commands and paths below /dev.
pub(crate) fn volumes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for name in lvm::names_in(text).into_iter().flatten() {
        assert_eq!(Name::of_path(&name.path()), Some(name));
    }
}

pub(crate) fn some_volumes() -> Vec<Vec<u8>> {
    let head = r#"{"report":[{"lv":[{"vg_name":"vg","vg_uuid":"A-b","vg_extent_size":"4194304","#;
    let tail = r#""vg_free_count":"9","lv_uuid":"c","lv_size":"8388608","lv_tags":"a,b"}]}]}"#;
    ["home", "[lvol0_pmspare]"]
        .map(|name| format!("{head}\"lv_name\":\"{name}\",{tail}").into_bytes())
        .to_vec()
}
