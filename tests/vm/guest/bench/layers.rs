//! Rows: what is laid over a disk. A new one is one more entry in `LAYERS`.

use std::path::Path;

use super::{
    Disks,
    interposer::Interposed,
    mapped::{self, Mapped},
    rublk::Rublk,
};

/// Something laid over a disk; taken away when dropped.
pub(super) trait Layer {
    /// What to measure on.
    fn device(&self) -> &Path;

    /// Whether first touches mean something.
    fn has_snapshot(&self) -> bool {
        false
    }

    /// Makes the snapshot a new one, which has kept nothing.
    fn renew(&mut self) {}

    /// Is told of first touches under the new snapshot: so many requests of 4 KiB.
    fn touched(&mut self, _requests: u64) {}

    /// What else is to be said.
    fn note(&self) -> Option<String> {
        None
    }
}

/// `None` where the guest lacks what it takes.
type Make = for<'a> fn(&'a Disks) -> Option<Box<dyn Layer + 'a>>;

/// "ublk loop between dm-linear" has all the layers of ours and does nothing: what tracking costs
/// is the difference.
pub(super) const LAYERS: [(&str, Make); 11] = [
    ("dm-linear", |disks| {
        Some(Mapped::boxed(disks, mapped::linear))
    }),
    ("ublk loop (rublk)", Rublk::over),
    ("ublk loop between dm-linear", Rublk::between),
    ("tidemark, assembled", |disks| {
        Some(Interposed::assembled(disks))
    }),
    ("tidemark, tracking", |disks| Some(Interposed::idle(disks))),
    ("tidemark, tracking durable", |disks| {
        Some(Interposed::durable(disks))
    }),
    ("tidemark, snapshot", |disks| {
        Some(Interposed::with_snapshot(disks))
    }),
    ("tidemark, snapshot, area on ext4", |disks| {
        Some(Interposed::with_area_on_ext4(disks))
    }),
    ("dm-snapshot 16k", |disks| {
        Some(Mapped::with_snapshot(disks, mapped::snapshot))
    }),
    ("dm-thin snapshot 64k", |disks| {
        Some(Mapped::with_snapshot(disks, mapped::thin_snapshot))
    }),
    ("dm-era 64k", |disks| {
        Some(Mapped::boxed(disks, mapped::era))
    }),
];
