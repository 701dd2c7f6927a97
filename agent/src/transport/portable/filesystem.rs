//! The FUSE file system: each operation finds its node, asks `device`, answers.
//!
//! Nothing is cached: both kinds of file are opened for direct I/O and the writeback cache is
//! off, so an answered write has reached the backend and a read shows what it holds.
//!
//! No code here touches the mount itself: the kernel would wait for the very thread that asks.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use fuser::{
    BsdFileFlags, Errno as FuseErrno, FileHandle, FileType, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyWrite, Request as Caller, TimeOrNow, WriteFlags,
};
use tidemark_store::units::Id;

use super::{
    device::{self, Source},
    nodes::{LIVE, LIVE_NAME, Node, Nodes, SNAPSHOTS, SNAPSHOTS_NAME, UNKNOWN},
};
use crate::{
    request::Errno,
    transport::{Backend, View},
};

/// Asynchronous direct I/O in flight before the kernel holds callers back. The loop driver's
/// queue is 128 deep; the rest is for readers of views.
const MAX_BACKGROUND: u16 = 256;

/// The file system over one backend.
pub(super) struct Files<B> {
    backend: Arc<B>,
    nodes: Nodes,
    open_files: Arc<AtomicUsize>,
    listings: Mutex<HashMap<u64, Arc<[View]>>>,
    next_listing: AtomicU64,
}

impl<B: Backend> Files<B> {
    /// A file system that counts its open files in `open_files`.
    pub(super) fn new(backend: Arc<B>, open_files: Arc<AtomicUsize>) -> Self {
        Self {
            nodes: Nodes::new(backend.capacity()),
            backend,
            open_files,
            listings: Mutex::default(),
            next_listing: AtomicU64::new(1),
        }
    }

    fn node(&self, number: INodeNo) -> Result<Node, FuseErrno> {
        // A view that the kernel still remembers and the table does not: gone.
        self.nodes.node(number).ok_or(FuseErrno::ESTALE)
    }

    fn source(&self, number: INodeNo) -> Result<Source, FuseErrno> {
        match self.node(number)? {
            Node::Live => Ok(Source::Live),
            Node::View(view) => Ok(Source::View(view.id)),
            Node::Root | Node::Snapshots => Err(FuseErrno::EISDIR),
        }
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<(INodeNo, Node), FuseErrno> {
        let name = name.to_str().ok_or(FuseErrno::ENOENT)?;
        match (self.node(parent)?, name) {
            (Node::Root, LIVE_NAME) => Ok((LIVE, Node::Live)),
            (Node::Root, SNAPSHOTS_NAME) => Ok((SNAPSHOTS, Node::Snapshots)),
            (Node::Root, _) => Err(FuseErrno::ENOENT),
            (Node::Snapshots, name) => {
                let view = Id::parse(name)
                    .filter(|id| id.to_string() == name)
                    .and_then(|id| self.backend.view(id))
                    .ok_or(FuseErrno::ENOENT)?;
                Ok((self.nodes.looked_up(view), Node::View(view)))
            }
            (Node::Live | Node::View(_), _) => Err(FuseErrno::ENOTDIR),
        }
    }

    fn open_file(&self, number: INodeNo, flags: OpenFlags) -> Result<FopenFlags, FuseErrno> {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        match self.source(number)? {
            Source::Live => {}
            // Root may open a 0400 file for writing: say no here.
            Source::View(_) if writes => return Err(FuseErrno::EROFS),
            Source::View(id) if self.backend.view(id).is_none() => return Err(FuseErrno::ESTALE),
            Source::View(_) => {}
        }
        // Without the last flag the kernel sends one write at a time.
        Ok(FopenFlags::FOPEN_DIRECT_IO
            | FopenFlags::FOPEN_NOFLUSH
            | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES)
    }

    /// The size may be set to what it is, which some tools do before they write.
    fn check_attributes(
        &self,
        number: INodeNo,
        changes_owner: bool,
        size: Option<u64>,
    ) -> Result<Node, FuseErrno> {
        let node = self.node(number)?;
        let keeps_size = size.is_none_or(|size| size == self.backend.capacity());
        match node {
            Node::Live if keeps_size && !changes_owner => Ok(node),
            Node::View(_) if size.is_some() => Err(FuseErrno::EROFS),
            _ if size.is_some() || changes_owner => Err(FuseErrno::EPERM),
            _ => Ok(node),
        }
    }

    fn fill(&self, number: INodeNo, handle: u64, from: u64, reply: &mut ReplyDirectory) {
        let mut entries = vec![
            (number, FileType::Directory, ".".to_owned()),
            (INodeNo::ROOT, FileType::Directory, "..".to_owned()),
        ];
        if number == INodeNo::ROOT {
            entries.push((LIVE, FileType::RegularFile, LIVE_NAME.to_owned()));
            entries.push((SNAPSHOTS, FileType::Directory, SNAPSHOTS_NAME.to_owned()));
        } else if let Some(views) = self.listings().get(&handle) {
            let named = views
                .iter()
                .map(|view| (UNKNOWN, FileType::RegularFile, view.id.to_string()));
            entries.extend(named);
        }
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        for (next, (number, kind, name)) in (1..).zip(entries).skip(skip) {
            if reply.add(number, next, kind, name) {
                break;
            }
        }
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Arc<[View]>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fuse_errno(errno: Errno) -> FuseErrno {
    FuseErrno::from_i32(errno.0)
}

fn request_features(config: &mut KernelConfig) {
    let wanted = [
        InitFlags::FUSE_ASYNC_DIO,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_MAX_PAGES,
    ];
    for feature in wanted {
        if let Err(missing) = config.add_capabilities(feature) {
            tracing::info!(
                ?missing,
                "this kernel's FUSE lacks a feature; going on without it"
            );
        }
    }
    // Each call stores its argument or names the nearest value that it takes.
    if let Err(nearest) = config.set_max_write(device::MAX_REQUEST_BYTES) {
        tracing::info!(nearest, "FUSE takes smaller writes only");
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        tracing::info!(nearest, "FUSE takes fewer requests at once only");
    }
}

impl<B: Backend> fuser::Filesystem for Files<B> {
    fn init(&mut self, _: &Caller, config: &mut KernelConfig) -> io::Result<()> {
        request_features(config);
        Ok(())
    }

    fn lookup(&self, _: &Caller, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok((number, node)) => reply.entry(
                &node.ttl(),
                &self.nodes.attributes(number, node),
                Generation(0),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Caller, number: INodeNo, lookups: u64) {
        self.nodes.forgotten(number, lookups);
    }

    fn getattr(&self, _: &Caller, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(number) {
            Ok(node) => reply.attr(&node.ttl(), &self.nodes.attributes(number, node)),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Caller,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes_owner = mode.is_some() || uid.is_some() || gid.is_some();
        match self.check_attributes(number, changes_owner, size) {
            Ok(node) => reply.attr(&node.ttl(), &self.nodes.attributes(number, node)),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Caller, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number, flags) {
            Ok(flags) => {
                self.open_files.fetch_add(1, Ordering::AcqRel);
                reply.opened(FileHandle(0), flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Caller,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.open_files.fetch_sub(1, Ordering::AcqRel);
        reply.ok();
    }

    fn read(
        &self,
        _: &Caller,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let source = match self.source(number) {
            Ok(source) => source,
            Err(errno) => return reply.error(errno),
        };
        device::read(&*self.backend, source, offset, size, |bytes| match bytes {
            Ok(bytes) => reply.data(bytes),
            Err(errno) => reply.error(fuse_errno(errno)),
        });
    }

    fn write(
        &self,
        _: &Caller,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if number != LIVE {
            return reply.error(FuseErrno::EROFS);
        }
        let done = device::write(&*self.backend, offset, data, flags.0);
        match done.and_then(|size| u32::try_from(size).map_err(|_| Errno::EIO)) {
            Ok(size) => reply.written(size),
            Err(errno) => reply.error(fuse_errno(errno)),
        }
    }

    fn fsync(&self, _: &Caller, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if number != LIVE {
            return reply.ok();
        }
        match device::flush(&*self.backend) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(fuse_errno(errno)),
        }
    }

    fn fallocate(
        &self,
        _: &Caller,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if number != LIVE {
            return reply.error(FuseErrno::EROFS);
        }
        match device::allocate(&*self.backend, mode, offset, length) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(fuse_errno(errno)),
        }
    }

    fn lseek(
        &self,
        _: &Caller,
        number: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.source(number).and_then(|source| {
            device::seek(&*self.backend, source, offset, whence).map_err(fuse_errno)
        });
        match found {
            Ok(at) => reply.offset(at),
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, _: &Caller, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = match self.node(number) {
            Ok(Node::Snapshots) => {
                // A listing read in parts stays the one it began as.
                let handle = self.next_listing.fetch_add(1, Ordering::Relaxed);
                self.listings().insert(handle, self.backend.views().into());
                handle
            }
            Ok(_) => 0,
            Err(errno) => return reply.error(errno),
        };
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Caller,
        number: INodeNo,
        handle: FileHandle,
        from: u64,
        mut reply: ReplyDirectory,
    ) {
        self.fill(number, handle.0, from, &mut reply);
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Caller,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings().remove(&handle.0);
        reply.ok();
    }

    // The tree is ours alone to change.

    fn create(
        &self,
        _: &Caller,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(FuseErrno::EPERM);
    }

    fn mknod(&self, _: &Caller, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(FuseErrno::EPERM);
    }

    fn mkdir(&self, _: &Caller, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(FuseErrno::EPERM);
    }

    fn unlink(&self, _: &Caller, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(FuseErrno::EPERM);
    }

    fn rmdir(&self, _: &Caller, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(FuseErrno::EPERM);
    }

    fn rename(
        &self,
        _: &Caller,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(FuseErrno::EPERM);
    }
}
