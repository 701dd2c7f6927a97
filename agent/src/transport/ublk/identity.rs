//! What tells our devices from others', and one of ours from another.
//!
//! The driver keeps 64 bits for the server with each device, for as long as the device lives.

use tidemark_store::units::Id;

use super::Role;

/// The bits of the device that stands for `role` of `volume`.
pub(super) fn of(volume: Id, role: Role) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("tidemark 2026 ublk device identity");
    hasher.update(&volume.0);
    match role {
        Role::Live => hasher.update(b"live"),
        Role::View(id) => hasher.update(b"view").update(&id.0),
    };
    let mut bits = [0; 8];
    hasher.finalize_xof().fill(&mut bits);
    u64::from_le_bytes(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_devices_share_an_identity() {
        let (one, other) = (Id([1; 16]), Id([2; 16]));
        let all = [
            of(one, Role::Live),
            of(other, Role::Live),
            of(one, Role::View(one)),
            of(one, Role::View(other)),
            of(other, Role::View(one)),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(of(one, Role::Live), all[0]);
    }
}
