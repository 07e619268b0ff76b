//! A file system in memory that knows what of it is durable: the data of a file since its last fsync, the names in a
//! directory since the last fsync of the directory. Nothing else is promised by fsync(2), so nothing else is kept for sure.
//!
//! One thing is taken for granted that every journalling file system gives: a rename is atomic.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fuser::Errno;

use crate::disk::chance::Chance;
use crate::disk::content::{Content, PAGE};

pub(crate) type Ino = u64;
pub(crate) const ROOT: Ino = 1;

type Names = BTreeMap<OsString, Ino>;

/// What an inode is. The first of two is what is seen, the second what is durable.
pub(crate) enum Kind {
    /// `dropped` is what a failed fsync did not write: it is taken for clean ever since, and never written again
    /// (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
    File {
        now: Content,
        durable: Content,
        dropped: Option<Content>,
    },
    Dir {
        now: Names,
        durable: Names,
    },
    Link(OsString),
}

pub(crate) struct Inode {
    pub(crate) kind: Kind,
    pub(crate) mode: u16,
    pub(crate) changed: SystemTime,
    changed_durable: SystemTime,
    pub(crate) opened: u64,
}

/// A change of names that is not durable yet.
enum Change {
    Set { dir: Ino, name: OsString, ino: Ino },
    Remove { dir: Ino, name: OsString },
    Rename { from: (Ino, OsString), to: (Ino, OsString), ino: Ino },
}

impl Change {
    fn touches(&self, ino: Ino) -> bool {
        match self {
            Change::Set { dir, .. } | Change::Remove { dir, .. } => *dir == ino,
            Change::Rename { from, to, .. } => from.0 == ino || to.0 == ino,
        }
    }
}

pub(crate) struct Model {
    inodes: BTreeMap<Ino, Inode>,
    changes: Vec<Change>,
    next: Ino,
    pub(crate) pages_max: u64,
}

impl Model {
    pub(crate) fn new(pages_max: u64) -> Self {
        let mut model = Self { inodes: BTreeMap::new(), changes: Vec::new(), next: ROOT, pages_max };
        model.make(Kind::Dir { now: Names::new(), durable: Names::new() }, 0o700);
        model
    }

    fn make(&mut self, kind: Kind, mode: u16) -> Ino {
        let (ino, changed) = (self.next, SystemTime::now());
        self.next += 1;
        self.inodes.insert(ino, Inode { kind, mode, changed, changed_durable: changed, opened: 0 });
        ino
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.inodes.get(&ino).ok_or(Errno::ENOENT)
    }

    pub(crate) fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    /// An inode that changes now.
    pub(crate) fn touch(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        let inode = self.inode_mut(ino)?;
        inode.changed = SystemTime::now();
        Ok(inode)
    }

    pub(crate) fn content(&self, ino: Ino) -> Result<&Content, Errno> {
        match &self.inode(ino)?.kind {
            Kind::File { now, .. } => Ok(now),
            _ => Err(Errno::EINVAL),
        }
    }

    /// To be changed; a disk that is full by then says so before anything has changed.
    pub(crate) fn change(&mut self, ino: Ino, change: impl FnOnce(&mut Content)) -> Result<(), Errno> {
        let Kind::File { now, .. } = &self.inode(ino)?.kind else { return Err(Errno::EINVAL) };
        let (mut changed, before) = (now.clone(), now.allocated_pages());
        change(&mut changed);
        let more = changed.allocated_pages().saturating_sub(before);
        if more > 0 && more > self.pages_free() {
            return Err(Errno::ENOSPC);
        }
        if let Kind::File { now, .. } = &mut self.touch(ino)?.kind {
            *now = changed;
        }
        Ok(())
    }

    pub(crate) fn pages_free(&self) -> u64 {
        let used = self.inodes.values().map(|inode| match &inode.kind {
            Kind::File { now, .. } => now.allocated_pages(),
            _ => 1,
        });
        self.pages_max.saturating_sub(used.sum())
    }

    pub(crate) fn names(&self, dir: Ino) -> Result<&Names, Errno> {
        match &self.inode(dir)?.kind {
            Kind::Dir { now, .. } => Ok(now),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, dir: Ino) -> Result<&mut Names, Errno> {
        match &mut self.touch(dir)?.kind {
            Kind::Dir { now, .. } => Ok(now),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn lookup(&self, dir: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.names(dir)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// A new inode under a new name.
    pub(crate) fn create(&mut self, dir: Ino, name: &OsStr, kind: Kind, mode: u16) -> Result<Ino, Errno> {
        if self.names(dir)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if self.pages_free() == 0 {
            return Err(Errno::ENOSPC);
        }
        let ino = self.make(kind, mode);
        self.names_mut(dir)?.insert(name.to_owned(), ino);
        self.changes.push(Change::Set { dir, name: name.to_owned(), ino });
        Ok(ino)
    }

    pub(crate) fn remove(&mut self, dir: Ino, name: &OsStr) -> Result<(), Errno> {
        let ino = self.lookup(dir, name)?;
        if self.names(ino).is_ok_and(|names| !names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.names_mut(dir)?.remove(name);
        self.changes.push(Change::Remove { dir, name: name.to_owned() });
        self.drop_unused();
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), replace: bool) -> Result<(), Errno> {
        let ino = self.lookup(from.0, from.1)?;
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => return Err(Errno::EEXIST),
            Ok(other) if self.names(other).is_ok_and(|names| !names.is_empty()) => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.names_mut(from.0)?.remove(from.1);
        self.names_mut(to.0)?.insert(to.1.to_owned(), ino);
        self.touch(ino)?;
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.changes.push(Change::Rename { from, to, ino });
        self.drop_unused();
        Ok(())
    }

    /// fsync(2), of a file.
    pub(crate) fn sync_file(&mut self, ino: Ino) -> Result<(), Errno> {
        let inode = self.inode_mut(ino)?;
        inode.changed_durable = inode.changed;
        if let Kind::File { now, durable, dropped } = &mut inode.kind {
            *durable = match dropped {
                Some(dropped) => Content::written_back(durable, now, dropped),
                None => now.clone(),
            };
        }
        Ok(())
    }

    /// An fsync that failed.
    pub(crate) fn sync_file_failed(&mut self, ino: Ino) {
        if let Ok(Inode { kind: Kind::File { now, dropped, .. }, .. }) = self.inode_mut(ino) {
            *dropped = Some(now.clone());
        }
    }

    /// fsync(2), of a directory: its names, not those in the directories below it.
    pub(crate) fn sync_dir(&mut self, dir: Ino) -> Result<(), Errno> {
        self.names(dir)?;
        let (done, left) = std::mem::take(&mut self.changes).into_iter().partition(|change| change.touches(dir));
        self.changes = left;
        let done: Vec<Change> = done;
        done.into_iter().for_each(|change| self.make_durable(change));
        self.drop_unused();
        Ok(())
    }

    fn durable_names(&mut self, dir: Ino) -> Option<&mut Names> {
        match &mut self.inodes.get_mut(&dir)?.kind {
            Kind::Dir { durable, .. } => Some(durable),
            _ => None,
        }
    }

    fn make_durable(&mut self, change: Change) {
        let (removed, set) = match change {
            Change::Set { dir, name, ino } => (None, Some((dir, name, ino))),
            Change::Remove { dir, name } => (Some((dir, name, None)), None),
            Change::Rename { from, to, ino } => (Some((from.0, from.1, Some(ino))), Some((to.0, to.1, ino))),
        };
        if let Some((dir, name, ino)) = removed
            && let Some(names) = self.durable_names(dir)
            && (ino.is_none() || names.get(&name).copied() == ino)
        {
            names.remove(&name);
        }
        if let Some((dir, name, ino)) = set
            && let Some(names) = self.durable_names(dir)
        {
            names.insert(name, ino);
        }
    }

    /// The power goes. What was not durable is there or not.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        for change in std::mem::take(&mut self.changes) {
            if !chance.loses() {
                self.make_durable(change);
            }
        }
        for inode in self.inodes.values_mut() {
            inode.opened = 0;
            if !chance.loses() {
                inode.changed_durable = inode.changed;
            }
            inode.changed = inode.changed_durable;
            match &mut inode.kind {
                Kind::File { now, durable, dropped } => {
                    *durable = Content::crashed(durable, now, chance);
                    (*now, *dropped) = (durable.clone(), None);
                }
                Kind::Dir { now, durable } => *now = durable.clone(),
                Kind::Link(_) => {}
            }
        }
        self.drop_unused();
    }

    /// Forgets inodes that no name leads to, now or after a crash, and that nobody has open.
    fn drop_unused(&mut self) {
        let mut used = std::collections::BTreeSet::from([ROOT]);
        let pending = self.changes.iter().filter_map(|change| match change {
            Change::Set { ino, .. } | Change::Rename { ino, .. } => Some(*ino),
            Change::Remove { .. } => None,
        });
        used.extend(pending);
        for (ino, inode) in &self.inodes {
            match &inode.kind {
                Kind::Dir { now, durable } => used.extend(now.values().chain(durable.values())),
                _ if inode.opened > 0 => drop(used.insert(*ino)),
                _ => {}
            }
        }
        self.inodes.retain(|ino, _| used.contains(ino));
    }

    /// `st_blocks`, of 512 bytes.
    pub(crate) fn blocks(inode: &Inode) -> u64 {
        match &inode.kind {
            Kind::File { now, .. } => now.allocated_pages() * (PAGE / 512),
            _ => 0,
        }
    }
}
