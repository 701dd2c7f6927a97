//! Telling interposers and private origins from other devices, in whatever order they are
//! stacked.

use tidemark_store::units::Id;

use crate::host::{
    device::DeviceNumber,
    dm::{Address, Control, DmError, Info, Slot, Table, disk},
};

/// The name of a volume's private origin.
pub fn origin_name(volume: Id) -> String {
    format!("tidemark-{volume}-origin")
}

/// The identity of a volume's private origin.
pub fn origin_uuid(volume: Id) -> String {
    format!("TIDEMARK-{volume}-origin")
}

/// The volume whose private origin has this identity.
pub fn volume_of_origin(uuid: &str) -> Option<Id> {
    Id::parse(uuid.strip_prefix("TIDEMARK-")?.strip_suffix("-origin")?)
}

/// The interposer that a device with this table lies over, if it is one of ours.
///
/// A ublk device may be anybody's; it is taken for ours when there is a private origin of the
/// same size. Another device is, when it is built on a private origin with
/// nothing between.
pub(super) fn interposer_under(
    control: &Control,
    table: &Table,
) -> Result<Option<DeviceNumber>, DmError> {
    let Some(over) = table.lies_over() else {
        return Ok(None);
    };
    let ours = if disk::is_ublk(over) {
        let sectors = table.sectors();
        let all = origins(control)?;
        all.iter()
            .any(|info| info.number.capacity() == sectors.checked_mul(512))
    } else {
        !is_origin(over) && over.slaves().into_iter().any(is_origin)
    };
    Ok(ours.then_some(over))
}

fn is_origin(device: DeviceNumber) -> bool {
    disk::dm_uuid(device).is_some_and(|uuid| volume_of_origin(&uuid).is_some())
}

/// The private origins of all volumes.
pub(super) fn origins(control: &Control) -> Result<Vec<Info>, DmError> {
    let mut found = Vec::new();
    for (number, _) in control.devices()? {
        // One may go while we look at the others.
        if let Some(info) = control.info(Address::Number(number))?
            && volume_of_origin(&info.uuid).is_some()
        {
            found.push(info);
        }
    }
    Ok(found)
}

/// Whether the private origin of `volume` maps what `table` maps: directly, or through an
/// interposer of another volume that was put over the origin, whose own private origin has the
/// table now.
pub(super) fn origin_maps(control: &Control, volume: Id, table: &Table) -> Result<Mapped, DmError> {
    let uuid = origin_uuid(volume);
    let (_, live) = control.table(Address::Uuid(&uuid), Slot::Live)?;
    if live == *table {
        return Ok(Mapped::Yes);
    }
    if interposer_under(control, &live)?.is_none() {
        return Ok(Mapped::No);
    }
    for origin in origins(control)? {
        if origin.uuid != uuid
            && control.table(Address::Number(origin.number), Slot::Live)?.1 == *table
        {
            return Ok(Mapped::Yes);
        }
    }
    Ok(Mapped::NoAndStacked)
}

/// See [`origin_maps`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mapped {
    Yes,
    /// It maps something else.
    No,
    /// It maps something else, and another volume's interposer is between.
    NoAndStacked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_origins_are_told_from_others() {
        let id = Id([0xab; 16]);
        assert_eq!(volume_of_origin(&origin_uuid(id)), Some(id));
        assert_eq!(origin_name(id).len(), "tidemark--origin".len() + 32);
        for uuid in [
            "",
            "LVM-x",
            "TIDEMARK-",
            "TIDEMARK-zz-origin",
            "TIDEMARK-ab-origin",
        ] {
            assert_eq!(volume_of_origin(uuid), None, "{uuid}");
        }
    }
}
