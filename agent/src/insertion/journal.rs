//! What was meant and how far it got, for the next process to finish or undo.
//!
//! A text file in memory: device-mapper's tables are gone after a reboot as well. It never
//! holds a table, which may have keys in it; the private origin in the kernel keeps that.
//!
//! ```text
//! tidemark insertion 1
//! stage inserted
//! volume 00112233445566778899aabbccddeeff
//! device 253:3 17 2097152           number, disk sequence or -, sectors
//! name vg-data
//! uuid LVM-...                      empty when it has none
//! over 259:1                        or -
//! baseline 800 0 16 0               or -; volume and over: sectors written and discarded
//! crc32c 1a2b3c4d                   of all lines above
//! ```

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tidemark_store::units::Id;

use super::{DmVolume, ledger::Baseline};
use crate::host::{device::DeviceNumber, dm::Sectors};

const TITLE: &str = "tidemark insertion 1";
/// Far more than names of the greatest length take.
const MAX_LEN: u64 = 4096;

/// How far an insertion or removal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The private origin is being made.
    Preparing,
    /// It is there; the volume is as it was.
    Prepared,
    /// The volume is being put over the interposer.
    Inserting,
    /// It is there, as far as we know.
    Inserted,
    /// The volume is being given its table back.
    Removing,
}

impl Stage {
    const ALL: [(Self, &str); 5] = [
        (Self::Preparing, "preparing"),
        (Self::Prepared, "prepared"),
        (Self::Inserting, "inserting"),
        (Self::Inserted, "inserted"),
        (Self::Removing, "removing"),
    ];

    fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(stage, _)| *stage == self);
        found.map_or("", |(_, word)| word)
    }

    fn parse(text: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found.map(|(stage, _)| *stage)
    }
}

/// All that is remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) stage: Stage,
    pub(super) id: Id,
    pub(super) volume: DmVolume,
    /// The interposer's device, from the intent to insert on.
    pub(super) over: Option<DeviceNumber>,
    pub(super) baseline: Option<Baseline>,
}

/// Why the journal could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("the journal {path}: {source}; it needs a few KiB of memory in /run or /dev/shm")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what we wrote.
    #[error("the journal {path} is damaged; the kernel's tables decide without it")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to another volume.
    #[error("the journal {path} is that of volume {found}, not of {wanted}; remove it by hand")]
    OtherVolume {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: Id,
        /// Whose it should be.
        wanted: Id,
    },
}

impl Record {
    fn encode(&self) -> String {
        let number = |device: Option<DeviceNumber>| device.map_or("-".into(), |d| d.to_string());
        let sequence = self.volume.sequence;
        let sequence = sequence.map_or("-".into(), |number| number.to_string());
        let baseline = self.baseline.map_or("-".into(), |baseline| {
            let (volume, over) = (baseline.volume, baseline.over);
            let (a, b) = (volume.written, volume.discarded);
            format!("{a} {b} {} {}", over.written, over.discarded)
        });
        let mut text = format!(
            "{TITLE}\nstage {}\nvolume {}\ndevice {} {sequence} {}\nname {}\nuuid {}\nover {}\n\
             baseline {baseline}\n",
            self.stage.word(),
            self.id,
            self.volume.number,
            self.volume.sectors,
            escape(&self.volume.name),
            escape(&self.volume.uuid),
            number(self.over),
        );
        let sum = crc32c::crc32c(text.as_bytes());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "crc32c {sum:08x}");
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let body = text.get(..text.rfind("crc32c ")?)?;
        let sum = text.get(body.len()..)?.strip_prefix("crc32c ")?;
        let sum = u32::from_str_radix(sum.strip_suffix('\n')?, 16).ok()?;
        if crc32c::crc32c(body.as_bytes()) != sum {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut field = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let stage = Stage::parse(field("stage")?)?;
        let id = Id::parse(field("volume")?)?;
        let mut device = field("device")?.split(' ');
        let volume = DmVolume {
            number: DeviceNumber::parse(device.next()?)?,
            sequence: optional(device.next()?, |text| text.parse().ok())?,
            sectors: device.next()?.parse().ok()?,
            name: unescape(field("name")?)?,
            uuid: unescape(field("uuid")?)?,
        };
        let record = Self {
            stage,
            id,
            volume,
            over: optional(field("over")?, DeviceNumber::parse)?,
            baseline: optional(field("baseline")?, parse_baseline)?,
        };
        // Numbers with a sign, needless escapes, lines too many: what is not ours to the byte.
        (record.encode() == text).then_some(record)
    }
}

/// Reads a journal's text, and gives the text of what was read: they are the same.
pub fn reread(text: &str) -> Option<String> {
    Record::parse(text).map(|record| record.encode())
}

/// `-` for none.
fn optional<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        "-" => Some(None),
        text => parse(text).map(Some),
    }
}

fn parse_baseline(text: &str) -> Option<Baseline> {
    let mut numbers = text.split(' ').map(|number| number.parse().ok());
    let mut sectors = || {
        Some(Sectors {
            written: numbers.next()??,
            discarded: numbers.next()??,
        })
    };
    Some(Baseline {
        volume: sectors()?,
        over: sectors()?,
    })
}

/// Names may hold anything but a slash and a zero; in a line they are kept to graphic ASCII.
fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            byte if byte.is_ascii_graphic() => text.push(char::from(byte)),
            byte => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Journal {
    path: PathBuf,
}

impl Journal {
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Puts `record` in the old one's place: a reader finds either.
    pub(super) fn write(&self, record: &Record) -> Result<(), JournalError> {
        let temporary = self.path.with_extension("new");
        let put = || {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(record.encode().as_bytes())?;
            fs::rename(&temporary, &self.path)
        };
        put().map_err(|source| self.failed(source))
    }

    /// What is remembered of the volume `wanted`; `None` when nothing is.
    pub(super) fn read(&self, wanted: Id) -> Result<Option<Record>, JournalError> {
        let text = match fs::metadata(&self.path).and_then(|metadata| {
            if metadata.len() > MAX_LEN {
                return Ok(String::new());
            }
            Ok(String::from_utf8(fs::read(&self.path)?).unwrap_or_default())
        }) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let record = Record::parse(&text).ok_or_else(|| JournalError::Damaged {
            path: self.path.clone(),
        })?;
        if record.id != wanted {
            return Err(JournalError::OtherVolume {
                path: self.path.clone(),
                found: record.id,
                wanted,
            });
        }
        Ok(Some(record))
    }

    /// Forgets everything.
    pub(super) fn delete(&self) -> Result<(), JournalError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(stage: Stage) -> Record {
        Record {
            stage,
            id: Id([7; 16]),
            volume: DmVolume {
                name: "vg-a b%\n\u{e9}".to_owned(),
                uuid: String::new(),
                number: DeviceNumber {
                    major: 253,
                    minor: 3,
                },
                sequence: Some(17),
                sectors: 2048,
            },
            over: Some(DeviceNumber {
                major: 259,
                minor: 1,
            }),
            baseline: Some(Baseline {
                volume: Sectors {
                    written: 8,
                    discarded: 1,
                },
                over: Sectors {
                    written: 2,
                    discarded: 3,
                },
            }),
        }
    }

    #[test]
    fn records_come_back() {
        for (stage, _) in Stage::ALL {
            let full = sample(stage);
            assert_eq!(Record::parse(&full.encode()), Some(full.clone()));
            let mut bare = full;
            (bare.over, bare.baseline, bare.volume.sequence) = (None, None, None);
            bare.volume.uuid = "LVM-x".to_owned();
            assert_eq!(Record::parse(&bare.encode()), Some(bare));
        }
    }

    #[test]
    fn no_damage_is_taken_for_a_record() {
        let text = sample(Stage::Inserted).encode();
        for at in 0..text.len() {
            assert_eq!(Record::parse(&text[..at]), None, "cut at {at}");
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(Record::parse(&changed), None, "changed at {at}");
        }
    }

    #[test]
    fn only_what_we_would_write_is_taken_for_a_record() {
        let text = sample(Stage::Inserted).encode();
        for (ours, other) in [
            ("253:3 17 2048", "253:3 +17 2048"),
            ("%20", "%+2"),
            ("over 259:1\n", "over 259:1\n\n"),
            ("baseline 8 1 2 3\n", "baseline 8 1 2 3 4\n"),
        ] {
            let body = text[..text.rfind("crc32c ").unwrap()].replace(ours, other);
            let sum = crc32c::crc32c(body.as_bytes());
            assert_eq!(
                Record::parse(&format!("{body}crc32c {sum:08x}\n")),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn the_file_is_replaced_read_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("insertion");
        let journal = Journal::at(&path);
        let id = Id([7; 16]);
        assert_eq!(journal.read(id).unwrap(), None);
        for stage in [Stage::Preparing, Stage::Inserted] {
            journal.write(&sample(stage)).unwrap();
            assert_eq!(journal.read(id).unwrap(), Some(sample(stage)));
        }
        let other = journal.read(Id([8; 16]));
        assert!(matches!(other, Err(JournalError::OtherVolume { .. })));
        fs::write(&path, "x".repeat(9999)).unwrap();
        assert!(matches!(
            journal.read(id),
            Err(JournalError::Damaged { .. })
        ));
        journal.delete().unwrap();
        journal.delete().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
