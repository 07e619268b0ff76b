use std::{
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::{
    FrameIndex, Result, VerifiedFrame,
    error::{Error, Object},
};

/// Where verified frames wait until the rebuild: a file that holds them back to back, in order of the index, each at its own place whenever it arrives.
///
/// That is also how [`encode`](crate::encode) writes them, so its output is a full spool. In memory is one flag and one offset for each frame.
pub struct Spool {
    file: File,
    index: FrameIndex,
    offsets: Vec<u64>,
    present: Mutex<Vec<bool>>,
}

impl Spool {
    /// An empty spool in a new file at `path`, mode 0600.
    pub fn create(path: &Path, index: FrameIndex) -> Result<Spool> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("create", Object::Spool))?;
        Ok(Spool::new(file, 0, index, false))
    }

    /// A spool in a file that holds all frames already, as [`encode`](crate::encode) wrote them. Each is verified when it is read.
    pub fn full(file: File, index: FrameIndex) -> Spool {
        Spool::full_at(file, 0, index)
    }

    /// The same for frames that begin at `start` of the file.
    pub(crate) fn full_at(file: File, start: u64, index: FrameIndex) -> Spool {
        Spool::new(file, start, index, true)
    }

    fn new(file: File, start: u64, index: FrameIndex, present: bool) -> Spool {
        let mut next = start;
        let offsets = index.frames.iter().map(|frame| {
            let offset = next;
            next += u64::from(frame.len_bytes);
            offset
        });
        Spool { file, offsets: offsets.collect(), present: Mutex::new(vec![present; index.frames.len()]), index }
    }

    /// The index that the frames belong to.
    pub fn index(&self) -> &FrameIndex {
        &self.index
    }

    /// Keeps a frame. The same frame twice is once.
    pub fn put(&self, frame: VerifiedFrame) -> Result<()> {
        let object = Object::Frame(frame.number());
        if self.index.frame(frame.number())? != frame.listed() {
            return Err(Error::Mismatch { object, reason: "it was verified against another index".into() });
        }
        let number = frame.number() as usize;
        self.file.write_all_at(frame.bytes(), self.offsets[number]).map_err(Error::io("spool", object))?;
        self.present()[number] = true;
        Ok(())
    }

    /// The numbers of the frames that have not come yet.
    pub fn missing(&self) -> Vec<u32> {
        let present = self.present();
        (0..).zip(present.iter()).filter(|(_, present)| !**present).map(|(number, _)| number).collect()
    }

    /// Reads a frame back. It is verified again: what is decoded is what was signed, whatever happened to the file.
    pub fn read(&self, number: u32) -> Result<VerifiedFrame> {
        let object = Object::Frame(number);
        let listed = self.index.frame(number)?;
        if !self.present()[number as usize] {
            return Err(Error::Mismatch { object, reason: "it has not arrived".into() });
        }
        let mut bytes = vec![0; listed.len_bytes as usize];
        self.file.read_exact_at(&mut bytes, self.offsets[number as usize]).map_err(Error::io("read back", object))?;
        self.index.verify(number, bytes)
    }

    /// Where in the file a frame stands.
    pub fn file_range(&self, number: u32) -> Result<Range<u64>> {
        let listed = self.index.frame(number)?;
        let start = self.offsets[number as usize];
        Ok(start..start + u64::from(listed.len_bytes))
    }

    fn present(&self) -> std::sync::MutexGuard<'_, Vec<bool>> {
        // The flags are right even if a thread panicked while it held them.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
