//! Who may do what: local callers are known by the credentials of their end of the socket.
//!
//! | role    | who                       | may                                                 |
//! |---------|---------------------------|-----------------------------------------------------|
//! | view    |                           | look                                                |
//! | backup  |                           | also make, read and release snapshots               |
//! | restore | the socket's group        | also write to volumes by restore sessions           |
//! | admin   | uid 0                     | also attach, detach, reset, and name target paths   |
//!
//! Each role may do what those above it may. Nobody else opens the socket (mode 0660); one who
//! does it all the same has no role, and each call answers PERMISSION.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tonic::{Request, Status, transport::server::Connected};

use crate::manager::{Error, ErrorReason};

/// What a caller may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Look.
    View,
    /// Make, read and release snapshots.
    Backup,
    /// Write to volumes by restore sessions.
    Restore,
    /// Everything.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Admin => "admin",
        }
    }
}

/// The caller at the other end of a connection; in the extensions of each of its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// What it may do; `None` is nothing.
    pub role: Option<Role>,
}

/// The role of a request's caller.
pub fn role<T>(request: &Request<T>) -> Option<Role> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.role)
}

/// Refuses a caller that has less than this role.
pub fn require<T>(request: &Request<T>, needed: Role) -> Result<(), Status> {
    let has = role(request);
    if has.is_some_and(|has| has >= needed) {
        return Ok(());
    }
    let why = format!(
        "this call needs the role \"{}\", and the caller has {}; members of the socket's group \
         have \"restore\", root has \"admin\"",
        needed.name(),
        has.map_or("none".to_owned(), |has| format!("\"{}\"", has.name())),
    );
    Err(Error::new(ErrorReason::Permission, why)
        .with("needed_role", needed.name())
        .into())
}

/// Looks a caller up. May ask name services, so it may take a while: keep it off the runtime.
pub(super) fn peer(uid: u32, gid: u32, group: Option<Gid>) -> Peer {
    let role = if uid == 0 {
        Some(Role::Admin)
    } else if group.is_some_and(|group| gid == group.as_raw() || is_member(uid, group)) {
        Some(Role::Restore)
    } else {
        None
    };
    Peer { uid, role }
}

fn is_member(uid: u32, group: Gid) -> bool {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return false;
    };
    let Ok(name) = std::ffi::CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&group))
}

/// The group of this name; `None` when there is none.
pub(super) fn group(name: &str) -> io::Result<Option<Gid>> {
    Ok(Group::from_name(name)?.map(|group| group.gid))
}

/// A connection and who is at its other end.
#[derive(Debug)]
pub(super) struct PeerStream {
    pub(super) stream: UnixStream,
    pub(super) peer: Peer,
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(role: Option<Role>) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Peer { uid: 1000, role });
        request
    }

    #[test]
    fn each_role_may_what_the_lesser_ones_may() {
        let roles = [Role::View, Role::Backup, Role::Restore, Role::Admin];
        for (has, role) in roles.into_iter().enumerate() {
            for (needs, needed) in roles.into_iter().enumerate() {
                let allowed = require(&from(Some(role)), needed).is_ok();
                assert_eq!(allowed, has >= needs);
            }
        }
        assert!(require(&from(None), Role::View).is_err());
        assert!(require(&Request::new(()), Role::View).is_err());
    }

    #[test]
    fn root_is_admin_and_the_group_restores() {
        let group = Some(Gid::from_raw(4711));
        assert_eq!(peer(0, 0, None).role, Some(Role::Admin));
        assert_eq!(peer(65_000, 4711, group).role, Some(Role::Restore));
        assert_eq!(peer(65_000, 4712, group).role, None);
        assert_eq!(peer(65_000, 4711, None).role, None);
    }
}
