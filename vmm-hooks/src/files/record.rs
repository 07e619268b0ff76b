//! What takes a process's place: one line in the machine's directory that says what the machine does.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::limits::RECORD_BYTES_MAX;
use crate::{Error, Result};

const NAME: &str = "state";
const VERSION: &str = "form-files-1";

/// What a machine does, as far as we drive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its files are there; nothing has been started on them.
    Made,
    Running,
    /// It is paused, or about to be, or about to go on.
    Paused,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Made => "made",
            State::Running => "running",
            State::Paused => "paused",
        }
    }
}

/// The record of one machine.
#[derive(Debug)]
pub(super) struct Record {
    dir: PathBuf,
    uuid: String,
}

impl Record {
    pub(super) fn new(dir: &Path, uuid: &str) -> Self {
        Record { dir: dir.into(), uuid: uuid.into() }
    }

    /// Whose it is.
    pub(super) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// `None` if there is none, or it is another machine's.
    pub(super) fn read(&self) -> Result<Option<State>> {
        let path = self.dir.join(NAME);
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(RECORD_BYTES_MAX).read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let state = match words.as_slice() {
            [VERSION, uuid, _] if *uuid != self.uuid => return Ok(None),
            [VERSION, _, word] => [State::Made, State::Running, State::Paused].into_iter().find(|s| s.word() == *word),
            _ => None,
        };
        let unknown = || Error::io("read", &path)(io::Error::new(io::ErrorKind::InvalidData, "not a record of ours"));
        state.map(Some).ok_or_else(unknown)
    }

    /// Durable when it returns.
    pub(super) fn write(&self, state: State) -> Result<()> {
        let (path, new) = (self.dir.join(NAME), self.dir.join("state.new"));
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            writeln!(file, "{VERSION} {} {}", self.uuid, state.word())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            self.sync()
        };
        write().map_err(Error::io("write", &path))
    }

    /// Fine if there is none.
    pub(super) fn remove(&self) -> Result<()> {
        let path = self.dir.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| self.sync()).map_err(Error::io("remove", &path)),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_machine_s_record_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::new(dir.path(), "mine");
        assert_eq!(record.read().unwrap(), None);
        for state in [State::Made, State::Running, State::Paused] {
            record.write(state).unwrap();
            assert_eq!(record.read().unwrap(), Some(state));
        }
        assert_eq!(Record::new(dir.path(), "another").read().unwrap(), None);
        for damaged in ["", "form-files-1 mine", "form-files-1 mine asleep", "form-files-2 mine made"] {
            fs::write(dir.path().join(NAME), damaged).unwrap();
            assert!(record.read().is_err(), "{damaged:?}");
        }
        record.remove().unwrap();
        record.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
