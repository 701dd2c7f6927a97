//! A device's table: which part of it maps to what.
//!
//! Parameters may hold keys (dm-crypt), so they are wiped when they go and never shown.

use std::fmt;

use super::ioctl::{text_of, wipe};
use crate::host::device::DeviceNumber;

/// `sizeof(struct dm_target_spec)`: start, length, status, next, type.
const SPEC_LEN: usize = 40;
const NEXT: usize = 20;
const KIND: usize = 24;
const KIND_LEN: usize = 16;

/// One target.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// First sector of the device.
    pub start: u64,
    /// Number of sectors.
    pub len: u64,
    /// `linear`, `crypt` and so on.
    pub kind: String,
    params: Vec<u8>,
}

impl Line {
    /// A target with its parameters as `dmsetup table --showkeys` shows them.
    pub fn new(start: u64, len: u64, kind: &str, params: &str) -> Self {
        Self {
            start,
            len,
            kind: kind.to_owned(),
            params: params.as_bytes().to_owned(),
        }
    }

    /// The parameter at this place, counted from 0.
    pub fn param(&self, place: usize) -> Option<&str> {
        let params = std::str::from_utf8(&self.params).ok()?;
        params.split_ascii_whitespace().nth(place)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        wipe(&mut self.params);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without its parameters where they may hold a key.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.start, self.len, self.kind)?;
        if matches!(
            self.kind.as_str(),
            "linear" | "striped" | "thin" | "snapshot-origin"
        ) {
            write!(f, " {}", String::from_utf8_lossy(&self.params))?;
        }
        Ok(())
    }
}

/// All targets of a device, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table(pub Vec<Line>);

impl Table {
    /// The table of a device that is the whole of another one.
    pub fn over(device: DeviceNumber, sectors: u64) -> Self {
        Self(vec![Line::new(
            0,
            sectors,
            "linear",
            &format!("{device} 0"),
        )])
    }

    /// The device that this table is the whole of, from its first sector on: what
    /// [`Table::over`] makes.
    pub fn lies_over(&self) -> Option<DeviceNumber> {
        match self.0.as_slice() {
            [line] if line.kind == "linear" && line.start == 0 && line.param(1) == Some("0") => {
                DeviceNumber::parse(line.param(0)?)
            }
            _ => None,
        }
    }

    /// The number of sectors that it maps.
    pub fn sectors(&self) -> u64 {
        let last = self.0.last();
        last.map_or(0, |line| line.start.saturating_add(line.len))
    }

    /// What a load takes: each target's length leads to the next.
    pub fn encode(&self) -> Option<Payload> {
        let mut bytes = Vec::with_capacity(
            self.0
                .iter()
                .map(|line| SPEC_LEN + padded(line.params.len()))
                .sum(),
        );
        for line in &self.0 {
            if line.kind.len() >= KIND_LEN {
                return None;
            }
            let next = u32::try_from(SPEC_LEN + padded(line.params.len())).ok()?;
            bytes.extend_from_slice(&line.start.to_ne_bytes());
            bytes.extend_from_slice(&line.len.to_ne_bytes());
            bytes.extend_from_slice(&0i32.to_ne_bytes());
            bytes.extend_from_slice(&next.to_ne_bytes());
            let mut kind = [0; KIND_LEN];
            kind[..line.kind.len()].copy_from_slice(line.kind.as_bytes());
            bytes.extend_from_slice(&kind);
            bytes.extend_from_slice(&line.params);
            bytes.resize(
                bytes.len() + padded(line.params.len()) - line.params.len(),
                0,
            );
        }
        Some(Payload(bytes))
    }

    /// Reads what the kernel tells of a table: each target's `next` counts from the first.
    pub fn decode(count: u32, payload: &[u8]) -> Option<Self> {
        let mut lines = Vec::new();
        let mut at = 0;
        for _ in 0..count {
            let spec = payload.get(at..)?;
            let params = spec.get(SPEC_LEN..)?;
            let params = params.split(|byte| *byte == 0).next()?;
            lines.push(Line {
                start: u64::from_ne_bytes(spec.get(..8)?.try_into().ok()?),
                len: u64::from_ne_bytes(spec.get(8..16)?.try_into().ok()?),
                kind: text_of(spec.get(KIND..KIND + KIND_LEN)?)?,
                params: params.trim_ascii_end().to_owned(),
            });
            let next = spec.get(NEXT..NEXT + 4)?.try_into().ok()?;
            let next = usize::try_from(u32::from_ne_bytes(next)).ok()?;
            // A chain that leads back would never end; the last target leads nowhere.
            if next < at + SPEC_LEN && lines.len() < usize::try_from(count).ok()? {
                return None;
            }
            at = next;
        }
        Some(Self(lines))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, line) in self.0.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}

/// The bytes of a table, wiped when they go.
pub struct Payload(pub Vec<u8>);

impl Drop for Payload {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// The length of a text with its closing zero, so that the next target is aligned.
fn padded(len: usize) -> usize {
    (len + 1).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer for `table`.
    fn answer(table: &Table) -> Vec<u8> {
        let mut bytes = table.encode().unwrap().0.clone();
        let mut at = 0;
        for _ in &table.0 {
            let next = u32::from_ne_bytes(bytes[at + NEXT..at + NEXT + 4].try_into().unwrap());
            let from_first = at + usize::try_from(next).unwrap();
            let value = u32::try_from(from_first).unwrap().to_ne_bytes();
            bytes[at + NEXT..at + NEXT + 4].copy_from_slice(&value);
            at = from_first;
        }
        bytes
    }

    fn sample() -> Table {
        Table(vec![
            Line::new(0, 100, "linear", "8:0 2048"),
            Line::new(100, 28, "crypt", "aes-xts-plain64 00ff 0 8:16 0"),
            Line::new(128, 8, "error", ""),
        ])
    }

    #[test]
    fn a_table_comes_back_as_it_was_loaded() {
        let table = sample();
        assert_eq!(Table::decode(3, &answer(&table)).unwrap(), table);
        assert_eq!(table.sectors(), 136);
        assert_eq!(Table::default().sectors(), 0);
    }

    #[test]
    fn answers_cut_short_are_no_table() {
        let bytes = answer(&sample());
        for len in 0..2 * SPEC_LEN {
            assert_eq!(Table::decode(3, &bytes[..len]), None, "{len}");
        }
        assert_eq!(Table::decode(5, &bytes), None);
        assert_eq!(Table::decode(0, &[]), Some(Table::default()));
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{} {:?}", sample(), sample());
        assert!(shown.contains("linear 8:0 2048") && shown.contains("100 28 crypt"));
        assert!(!shown.contains("00ff"));
    }

    #[test]
    fn only_the_whole_of_a_device_lies_over_it() {
        let device = DeviceNumber {
            major: 259,
            minor: 7,
        };
        assert_eq!(Table::over(device, 8).lies_over(), Some(device));
        let no = [
            sample(),
            Table::default(),
            Table(vec![Line::new(0, 8, "linear", "259:7 1")]),
            Table(vec![Line::new(8, 8, "linear", "259:7 0")]),
            Table(vec![Line::new(0, 8, "striped", "259:7 0")]),
            Table(vec![Line::new(0, 8, "linear", "259:7")]),
        ];
        for table in no {
            assert_eq!(table.lies_over(), None, "{table}");
        }
    }

    #[test]
    fn targets_that_lead_back_are_refused() {
        let mut payload = sample().encode().unwrap().0.clone();
        payload[NEXT..NEXT + 4].copy_from_slice(&0_u32.to_ne_bytes());
        assert_eq!(Table::decode(u32::MAX, &payload), None);
        assert!(Table::decode(1, &payload).is_some());
    }

    #[test]
    fn names_of_targets_have_a_limit() {
        let table = Table(vec![Line::new(0, 8, &"x".repeat(KIND_LEN), "")]);
        assert!(table.encode().is_none());
    }
}
