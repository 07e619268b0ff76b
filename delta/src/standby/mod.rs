//! A file that is kept at a base's content, so that the next image is made by writing what changed into it instead of copying the base first. As with A/B updates
//! it is brought up in the background, and consumed by renaming it.
//!
//! It is worth nothing if it is not what it is taken for. So beside it lies a durable record (FORMAT.md, "Standby record"): *clean*, every byte was hashed since
//! the file was last written; or *dirty*, written only within these extents since it was a certain image. The dirty record is durable before the first write, and
//! the clean record is written after the bytes are durable and hashed. No record, a damaged one, or one of a file that has changed since, says nothing: then
//! everything is compared, and everything is hashed.

mod record;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use self::record::{Born, Record, Stamp};
use crate::{
    Extent, Hash, Image, Manifest, Refreshed, Result, compare,
    error::{Error, Object},
    image::{clip, normalise, whole_blocks},
    limits::STANDBY_EXTENTS_MAX,
    live,
    verify::verify,
};

/// A standby image. It has one owner at a time, in whatever process.
#[derive(Debug)]
pub struct Standby {
    path: PathBuf,
    file: File,
    record: Option<Record>,
}

impl Standby {
    /// Opens the standby at `path`, for itself alone: an error says that somebody else has it, or has it mapped as a base (whoever holds a shared `flock`). A file
    /// that is not there is made, empty, mode 0600.
    pub fn open(path: &Path) -> Result<Standby> {
        Standby::open_with(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))
    }

    /// The same of a file that must be there.
    pub fn open_existing(path: &Path) -> Result<Standby> {
        Standby::open_with(path, OpenOptions::new().read(true).write(true))
    }

    fn open_with(path: &Path, options: &OpenOptions) -> Result<Standby> {
        let file = options.open(path).map_err(Error::io("open", Object::Standby))?;
        lock(&file)?;
        // Between the two calls somebody may have renamed it.
        let is_it = |found: fs::Metadata| file.metadata().is_ok_and(|ours| ours.ino() == found.ino());
        if !fs::metadata(path).is_ok_and(is_it) {
            return Err(Error::io("lock", Object::Standby)(io::Error::from(io::ErrorKind::WouldBlock)));
        }
        // A record that cannot be read says nothing, which is always safe.
        let found = Born::of(&file.metadata().map_err(Error::io("stat", Object::Standby))?);
        let record = Record::read(&record_path(path)).ok().filter(|record| record.is_of(&found));
        Ok(Standby { path: path.to_owned(), file, record })
    }

    /// Makes the file at `from`, which nobody may have open any more, the standby at `path`, in place of one that is there. It is taken for the image of that
    /// root, if there is one, once it has been hashed.
    pub fn adopt(path: &Path, from: &Path, root: Option<Hash>) -> Result<Standby> {
        let file = OpenOptions::new().read(true).write(true).open(from).map_err(Error::io("open", Object::Standby))?;
        lock(&file)?;
        remove_record(path)?;
        fs::rename(from, path).map_err(Error::io("rename", Object::Standby))?;
        sync_dir(path)?;
        let mut standby = Standby { path: path.to_owned(), file, record: None };
        if let Some(root) = root {
            standby.put_dirty(root, root, Vec::new())?;
        }
        Ok(standby)
    }

    /// Its record was found to be wrong: it says nothing any more, durably, so that nobody is luckier with the next look.
    pub fn forget(&mut self) -> Result<()> {
        remove_record(&self.path)?;
        self.record = None;
        Ok(())
    }

    /// The image that it is, byte for byte; `None` if that is not known.
    pub fn root(&self) -> Option<Hash> {
        match &self.record {
            Some(Record::Clean { root, stamp }) if self.stamp().ok().as_ref() == Some(stamp) => Some(*root),
            _ => None,
        }
    }

    /// The image that it is, or differs from only where its record says so: the manifest of this one is worth giving to [`Standby::bring_to`].
    pub fn near(&self) -> Option<Hash> {
        match &self.record {
            Some(Record::Dirty { to, .. }) => Some(*to),
            _ => self.root(),
        }
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Takes note that it is the image of that root: every byte was hashed since the file was last written to, as an [image index](crate::ImageIndex) of it
    /// says that fits.
    pub fn know(&mut self, root: Hash) -> Result<()> {
        let stamp = self.stamp()?;
        self.put(Record::Clean { root, stamp })
    }

    /// Compares it with `base`, which `file` holds and `manifest` describes. If it differs only where an interrupted change of it was to write, that is undone,
    /// durable and hashed. Whether the two are equal now: a file that is another one is not touched.
    pub fn equals(&mut self, base: &Image, file: &File, manifest: &Manifest) -> Result<bool> {
        let again = self.file.try_clone().map_err(Error::io("open", Object::Standby))?;
        let ours = Image::from_file(again)?;
        let mut differs = compare(&ours, base)?;
        differs.push(Extent::new(base.len_bytes(), ours.len_bytes()));
        // Nothing is mapped that is written to.
        drop(ours);
        let differs = normalise(differs);
        if differs.is_empty() {
            return Ok(true);
        }
        let Some(Record::Dirty { from, extents, .. }) = &self.record else { return Ok(false) };
        // What was compared is whole blocks.
        let written = whole_blocks(extents);
        if *from != manifest.root() || !differs.iter().all(|extent| clip(&written, *extent).next() == Some(*extent)) {
            return Ok(false);
        }
        live::refresh(file, &self.file, &differs, &|| true)?;
        self.file.sync_all().map_err(Error::io("make durable", Object::Standby))?;
        verify(&self.file, manifest, Some(differs), &|| true)?;
        Ok(true)
    }

    /// Notes, durably, that it is about to be written to within `extents`, to become another image than `from`. Until it is [renamed](Standby::renamed) or
    /// noted to be an image, it may hold anything there.
    pub fn begin_changing(&mut self, from: &Manifest, to: &Manifest, extents: &[Extent]) -> Result<()> {
        let (before, after) = (from.image_len_bytes(), to.image_len_bytes());
        let tail = Extent::new(before.min(after), before.max(after));
        let extents = join(normalise([extents, &[tail]].concat()));
        if extents.is_empty() {
            return Ok(());
        }
        self.put_dirty(from.root(), to.root(), extents)
    }

    /// It was renamed, and is a standby no more: its record goes, once the directory that it was in is synced. One that comes back is harmless: it
    /// is of another file than whatever has that name next.
    pub fn renamed(self) -> Result<()> {
        match fs::remove_file(record_path(&self.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", Object::StandbyRecord)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes it equal to `base`, whose manifest is given, durable and hashed. With the manifest of what it is [near](Standby::near), only what differs between
    /// the two is read, and hashed; without, everything is. `go_on` is asked between steps; after a no the work ends with [`Error::Cancelled`], and the next
    /// call goes on from there.
    pub fn bring_to(
        &mut self,
        base: &File,
        manifest: &Manifest,
        older: Option<&Manifest>,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Refreshed> {
        let to = manifest.root();
        if self.root() == Some(to) {
            return Ok(Refreshed::default());
        }
        let asked = || if go_on() { Ok(()) } else { Err(Error::Cancelled) };
        asked()?;
        let clean = self.root();
        let changed = older.map(|older| (older.root(), manifest.changed_since(older)));
        let todo = match (&self.record, changed) {
            (Some(Record::Dirty { from, to: last, extents, .. }), _) if *last == to => Some((*from, extents.clone())),
            (Some(Record::Dirty { from, to: last, extents, .. }), Some((older, changed))) if *last == older => {
                Some((*from, [&extents[..], &changed[..]].concat()))
            }
            (_, Some((older, changed))) if clean == Some(older) => Some((older, changed)),
            _ => None,
        };
        let extents = match todo {
            Some((from, extents)) => {
                let extents = join(normalise(extents));
                self.put_dirty(from, to, extents.clone())?;
                extents
            }
            None => {
                // Of what it was nothing is kept: the record says that it is being made, and may hold anything.
                let len_bytes = self.stamp()?.len_bytes.max(manifest.image_len_bytes());
                let everything = vec![Extent::new(0, len_bytes)];
                self.put_dirty(to, to, everything.clone())?;
                everything
            }
        };
        asked()?;
        let moved = live::refresh(base, &self.file, &extents, go_on)?;
        asked()?;
        self.file.sync_all().map_err(Error::io("make durable", Object::Standby))?;
        asked()?;
        // What was clean and is not written to now was hashed before, and is what it was.
        let to_hash = (clean.is_some() && self.record.is_some()).then_some(extents);
        match verify(&self.file, manifest, to_hash, go_on) {
            Ok(_) => {}
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => {
                // Nothing that was believed of it holds.
                self.forget()?;
                return Err(error);
            }
        }
        asked()?;
        let stamp = self.stamp()?;
        self.put(Record::Clean { root: to, stamp })?;
        Ok(moved)
    }

    /// Renames it to `to`, which must not exist, for good: it is a standby no more, and may be written to. Only of a standby whose [root](Standby::root) is
    /// known. The new name is durable once its directory is synced.
    pub fn consume(self, to: &Path) -> Result<File> {
        if self.root().is_none() {
            let reason = "it is not known to be an image".into();
            return Err(Error::Mismatch { object: Object::Standby, reason });
        }
        // First, and durably: the record must not be believed after the first write that comes now.
        remove_record(&self.path)?;
        renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE)
            .map_err(Error::io("rename", Object::Standby))?;
        flock(&self.file, FlockOperation::Unlock).map_err(Error::io("unlock", Object::Standby))?;
        Ok(self.file)
    }

    /// Removes it with its record.
    pub fn remove(self) -> Result<()> {
        remove_record(&self.path)?;
        fs::remove_file(&self.path).map_err(Error::io("remove", Object::Standby))
    }

    fn stamp(&self) -> Result<Stamp> {
        let stat = self.file.metadata().map_err(Error::io("stat", Object::Standby))?;
        Ok(Stamp {
            len_bytes: stat.len(),
            inode: stat.ino(),
            changed_s: stat.ctime(),
            changed_ns: stat.ctime_nsec() as u32,
        })
    }

    fn put_dirty(&mut self, from: Hash, to: Hash, extents: Vec<Extent>) -> Result<()> {
        let file = Born::of(&self.file.metadata().map_err(Error::io("stat", Object::Standby))?);
        self.put(Record::Dirty { from, to, file, extents })
    }

    /// Durable when it returns.
    fn put(&mut self, record: Record) -> Result<()> {
        record.write(&record_path(&self.path))?;
        sync_dir(&self.path)?;
        self.record = Some(record);
        Ok(())
    }
}

fn lock(file: &File) -> Result<()> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(Error::io("lock", Object::Standby))
}

/// Where the record of a standby is.
fn record_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".record");
    name.into()
}

fn remove_record(path: &Path) -> Result<()> {
    match fs::remove_file(record_path(path)) {
        Ok(()) => sync_dir(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("remove", Object::StandbyRecord)(error)),
    }
}

/// Makes the names beside `path` durable.
fn sync_dir(path: &Path) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("make durable the name of", Object::Standby))
}

/// At most `STANDBY_EXTENTS_MAX` extents that cover a normalised list.
fn join(mut extents: Vec<Extent>) -> Vec<Extent> {
    let mut gap_bytes = 4096;
    while extents.len() > STANDBY_EXTENTS_MAX {
        extents.dedup_by(|next, kept| {
            let near = next.start - kept.end <= gap_bytes;
            if near {
                kept.end = next.end;
            }
            near
        });
        gap_bytes *= 2;
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_an_end() {
        let many: Vec<Extent> =
            (0..4 * STANDBY_EXTENTS_MAX as u64).map(|n| Extent::new(n * 65536, n * 65536 + n % 4096 + 1)).collect();
        let joined = join(many.clone());
        assert!(joined.len() <= STANDBY_EXTENTS_MAX);
        assert!(joined.is_sorted_by(|a, b| a.end < b.start));
        assert!(many.iter().all(|extent| clip(&joined, *extent).next() == Some(*extent)));
        assert_eq!(join(many[..100].to_vec()), many[..100]);
    }
}
