//! `[volume.NAME]`

use std::time::Duration;

use toml::de::DeValue;

use super::{
    Table,
    value::{self, Wrong},
};
use crate::{Area, Assemble, Durability, FreezeHooks, Transport, Volume, WhenFull, units};

/// Limits of the agent's; the default delay is `tidemark volume attach`'s.
const MIN_BLOCK: u64 = 4096;
const MAX_BLOCK: u64 = 65536;
const MAX_AREA: u64 = 16 << 40;
const WRITE_DELAY: Duration = Duration::from_millis(50);
const MAX_WRITE_DELAY: Duration = Duration::from_secs(60);
/// Writers go on while a hook runs, but a snapshot waits.
const MAX_HOOK: Duration = Duration::from_secs(3600);

const POLICIES: [(&str, bool); 2] = [("drop", false), ("slow", true)];
const DURABILITIES: [(&str, Durability); 3] = [
    ("auto", Durability::Auto),
    ("durable", Durability::Durable),
    ("volatile", Durability::Volatile),
];
const TRANSPORTS: [(&str, Transport); 3] = [
    ("auto", Transport::Auto),
    ("ublk", Transport::Ublk),
    ("portable", Transport::Portable),
];
const ASSEMBLIES: [(&str, Assemble); 3] = [
    ("auto", Assemble::Auto),
    ("boot", Assemble::Boot),
    ("late", Assemble::Late),
];

pub(super) fn read(mut table: Table<'_>) -> Option<Volume> {
    let device = table.required("device", "\"/dev/vg/data\"", value::path);
    let area = table.required("area", "\"lv\", or a path on another disk", area);
    let volume = Volume {
        device: device.clone().unwrap_or_default(),
        area: area.clone().unwrap_or(Area::LogicalVolume(String::new())),
        area_size: table.or("area-size", area_size, 0),
        block_size: table.or("block-size", block_size, 4096),
        when_full: when_full(&mut table),
        durability: table.or("durability", value::one_of(&DURABILITIES), Durability::Auto),
        durable_snapshots: table.or("durable-snapshots", value::flag, false),
        transport: table.or("transport", value::one_of(&TRANSPORTS), Transport::Auto),
        assemble: table.or("assemble", value::one_of(&ASSEMBLIES), Assemble::Auto),
        hooks: table.table("hooks").map(hooks).unwrap_or_default(),
    };
    if volume.durable_snapshots && volume.durability == Durability::Volatile {
        let why =
            "snapshots outlive the host only where tracking does; set durability = \"durable\"";
        table.complain_of("durable-snapshots", why.to_owned());
    }
    if area.is_some() && volume.area == Area::At(volume.device.clone()) {
        let why = "the area is the volume's own device; put it on another, or write \"lv\"";
        table.complain_of("area", why.to_owned());
    }
    table.finish();
    device.and(area).map(|_| volume)
}

/// `lv`, `lv:NAME`, or a path.
fn area(value: &DeValue<'_>) -> Result<Area, Wrong> {
    let text = value::text(value)?;
    let letters = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    let is_name =
        |name: &str| !name.is_empty() && !name.starts_with('-') && name.chars().all(letters);
    match (text.as_str(), text.strip_prefix("lv:")) {
        ("lv", _) => Ok(Area::LogicalVolume(String::new())),
        (_, Some(name)) if is_name(name) => Ok(Area::LogicalVolume(name.to_owned())),
        (_, Some(name)) => Err(format!(
            "\"{name}\" is no name of a logical volume; use letters, digits, '+', '_', '.' and '-', the first \
             no '-': its group is the device's"
        )
        .into()),
        (path, None) => value::absolute(path).map(Area::At).ok_or_else(|| {
            let what = "is neither \"lv\", \"lv:NAME\" nor an absolute path";
            format!("\"{path}\" {what}; write one of them").into()
        }),
    }
}

fn area_size(value: &DeValue<'_>) -> Result<u64, Wrong> {
    let bytes = value::size(value)?;
    match bytes <= MAX_AREA {
        true => Ok(bytes),
        false => Err(format!("{bytes} bytes are too many; write at most \"16TiB\"").into()),
    }
}

fn block_size(value: &DeValue<'_>) -> Result<u32, Wrong> {
    let bytes = value::size(value)?;
    u32::try_from(bytes)
        .ok()
        .filter(|_| (MIN_BLOCK..=MAX_BLOCK).contains(&bytes) && bytes.is_power_of_two())
        .ok_or_else(|| {
            let bytes = units::exact_size(bytes);
            format!("{bytes} is no power of two from 4KiB to 64KiB; leave it out for 4KiB").into()
        })
}

fn when_full(table: &mut Table<'_>) -> WhenFull {
    let slow = table.or("when-full", value::one_of(&POLICIES), false);
    let span = value::duration(Duration::from_millis(1), MAX_WRITE_DELAY);
    let delay = table.optional("max-write-delay", span);
    if delay.is_some() && !slow {
        let why = "writers are only delayed with when-full = \"slow\"; set that, or remove this";
        table.complain_of("max-write-delay", why.to_owned());
    }
    match slow {
        true => WhenFull::Slow(delay.unwrap_or(WRITE_DELAY)),
        false => WhenFull::Drop,
    }
}

fn hooks(mut table: Table<'_>) -> FreezeHooks {
    let usual = FreezeHooks::default();
    let span = value::duration(Duration::from_secs(1), MAX_HOOK);
    let read = FreezeHooks {
        before_freeze: table.or("before-freeze", value::program, usual.before_freeze),
        after_thaw: table.or("after-thaw", value::program, usual.after_thaw),
        timeout: table.or("timeout", span, usual.timeout),
        required: table.or("required", value::flag, usual.required),
    };
    table.finish();
    read
}
