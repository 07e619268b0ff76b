//! The model as a file system that the kernel mounts (FUSE), in a process of its own: a page fault of the node on one of
//! its files must not wait for a thread of the node's own process.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::disk::content::{Content, PAGE};
use crate::disk::faults::{Faults, Verdict};
use crate::disk::model::{Ino, Inode, Kind, Model, ROOT};

/// The kernel is told of every change, for it makes them.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;
const SEEK_DATA: i32 = 3;

/// What is on the disk, and what is to go wrong.
pub(crate) struct State {
    pub(crate) model: Model,
    pub(crate) faults: Faults,
}

/// The disk as the kernel meets it.
#[derive(Clone)]
pub(crate) struct Served(pub(crate) Arc<Mutex<State>>);

impl Served {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation that changes something: it is counted, and may be made to fail or to wait for the power to be gone.
    fn change<R: Send + 'static, T>(
        &self,
        name: &str,
        reply: R,
        error: fn(R, Errno),
        act: impl FnOnce(&mut Model) -> Result<T, Errno>,
        done: impl FnOnce(R, T),
    ) -> Option<Errno> {
        let mut state = self.state();
        let failed = match state.faults.next(name) {
            Verdict::Go => match act(&mut state.model) {
                Ok(result) => {
                    done(reply, result);
                    return None;
                }
                Err(failed) => failed,
            },
            Verdict::Fail(failed) => failed,
            Verdict::Hold => {
                state.faults.hold(Box::new(move || error(reply, Errno::EIO)));
                return None;
            }
        };
        error(reply, failed);
        Some(failed)
    }
}

fn attr(ino: Ino, inode: &Inode) -> FileAttr {
    let (kind, size) = match &inode.kind {
        Kind::File { now, .. } => (FileType::RegularFile, now.len()),
        Kind::Dir { .. } => (FileType::Directory, 0),
        Kind::Link(to) => (FileType::Symlink, to.len() as u64),
    };
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: Model::blocks(inode),
        atime: SystemTime::UNIX_EPOCH,
        mtime: inode.changed,
        ctime: inode.changed,
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: inode.mode,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: u32::try_from(PAGE).expect("small"),
        flags: 0,
    }
}

fn named(model: &Model, ino: Ino) -> Result<FileAttr, Errno> {
    Ok(attr(ino, model.inode(ino)?))
}

fn new_file() -> Kind {
    Kind::File { now: Content::default(), durable: Content::default(), dropped: None }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        match state.model.lookup(parent.0, name).and_then(|ino| named(&state.model, ino)) {
            Ok(attr) => reply.entry(&FOR_EVER, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match named(&self.state().model, ino.0) {
            Ok(attr) => reply.attr(&FOR_EVER, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let act = |model: &mut Model| {
            if let Some(size) = size {
                model.change(ino.0, |content| content.set_len(size))?;
            }
            let inode = model.touch(ino.0)?;
            inode.mode = mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()).unwrap_or(inode.mode);
            named(model, ino.0)
        };
        self.change("setattr", reply, ReplyAttr::error, act, |reply, attr| reply.attr(&FOR_EVER, &attr));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.state().model.inode(ino.0).map(|inode| &inode.kind) {
            Ok(Kind::Link(to)) => reply.data(to.as_encoded_bytes()),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let kind = Kind::Dir { now: Default::default(), durable: Default::default() };
        self.create_named("mkdir", parent, name, kind, mode & !umask, reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.create_named("symlink", parent, name, Kind::Link(target.as_os_str().to_owned()), 0o777, reply);
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: u32, reply: ReplyEntry) {
        self.create_named("create", parent, name, new_file(), mode & !umask, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let act = |model: &mut Model| model.remove(parent.0, name);
        self.change("unlink", reply, ReplyEmpty::error, act, |reply, ()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let act = |model: &mut Model| model.remove(parent.0, name);
        self.change("rmdir", reply, ReplyEmpty::error, act, |reply, ()| reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let act = |model: &mut Model| model.rename((parent.0, name), (new_parent.0, new_name), replace);
        self.change("rename", reply, ReplyEmpty::error, act, |reply, ()| reply.ok());
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.state().model.inode_mut(ino.0) {
            Ok(inode) => {
                inode.opened += 1;
                reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        let act = |model: &mut Model| {
            let ino = model.create(parent.0, name, new_file(), mode_of(mode & !umask))?;
            model.inode_mut(ino)?.opened += 1;
            named(model, ino)
        };
        self.change("create", reply, ReplyCreate::error, act, |reply, attr| {
            reply.created(&FOR_EVER, &attr, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(inode) = self.state().model.inode_mut(ino.0) {
            inode.opened = inode.opened.saturating_sub(1);
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.state().model.content(ino.0) {
            Ok(content) => reply.data(&content.read(offset, u64::from(size))),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let act = |model: &mut Model| model.change(ino.0, |content| content.write(offset, data));
        let done = |reply: ReplyWrite, ()| reply.written(u32::try_from(data.len()).expect("the kernel's"));
        if flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            // The kernel's own: of a file that is mapped for writing. That is SQLite's index of its log, which it makes anew
            // after a crash; when the kernel writes it is nobody's step.
            return match act(&mut self.state().model) {
                Ok(()) => done(reply, ()),
                Err(error) => reply.error(error),
            };
        }
        self.change("write", reply, ReplyWrite::error, act, done);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let act = |model: &mut Model| model.sync_file(ino.0);
        if self.change("fsync", reply, ReplyEmpty::error, act, |reply, ()| reply.ok()).is_some() {
            self.state().model.sync_file_failed(ino.0);
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let act = |model: &mut Model| model.sync_dir(ino.0);
        self.change("fsync of a directory", reply, ReplyEmpty::error, act, |reply, ()| reply.ok());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.state();
        let Ok(names) = state.model.names(ino.0) else { return reply.error(Errno::ENOTDIR) };
        let own = [(1, OsStr::new("."), ino.0), (2, OsStr::new(".."), ROOT)];
        // An entry's place is its own, or while others come and go it would be listed twice, or never.
        let entries = names.iter().map(|(name, ino)| (ino + 2, name.as_os_str(), *ino));
        let mut all: Vec<_> = own.into_iter().chain(entries).filter(|(place, ..)| *place > offset).collect();
        all.sort_unstable_by_key(|(place, ..)| *place);
        for (place, name, ino) in all {
            let Ok(inode) = named(&state.model, ino) else { continue };
            if reply.add(INodeNo(ino), place, inode.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let end = offset.saturating_add(length);
        let act = |model: &mut Model| {
            model.change(ino.0, |content| match mode & PUNCH_HOLE != 0 {
                true => content.punch(offset, end),
                false => {
                    content.allocate(offset, end);
                    if mode & KEEP_SIZE == 0 && end > content.len() {
                        content.set_len(end);
                    }
                }
            })
        };
        self.change("fallocate", reply, ReplyEmpty::error, act, |reply, ()| reply.ok());
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let offset = u64::try_from(offset).unwrap_or(0);
        let found = self.state().model.content(ino.0).map(|content| content.seek(offset, whence == SEEK_DATA));
        match found {
            Ok(Some(at)) => reply.offset(i64::try_from(at).expect("small")),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let model = &self.state().model;
        let (all, free, page) = (model.pages_max, model.pages_free(), u32::try_from(PAGE).expect("small"));
        reply.statfs(all, free, free, 1 << 20, 1 << 20, page, 255, page);
    }
}

fn mode_of(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("12 bits")
}

impl Served {
    fn create_named(&self, op: &str, parent: INodeNo, name: &OsStr, kind: Kind, mode: u32, reply: ReplyEntry) {
        let act = |model: &mut Model| {
            let ino = model.create(parent.0, name, kind, mode_of(mode))?;
            named(model, ino)
        };
        self.change(op, reply, ReplyEntry::error, act, |reply, attr| reply.entry(&FOR_EVER, &attr, Generation(0)));
    }
}
