use std::{fs::File, os::unix::fs::FileExt};

use super::{Calls, Writer};
use crate::{
    Result,
    error::{Error, Object},
};

/// The reference: one write after the other.
pub(super) struct Pwrite<'a> {
    file: &'a File,
    spare: Vec<u8>,
    calls: Calls,
}

impl<'a> Pwrite<'a> {
    pub(super) fn new(file: &'a File) -> Pwrite<'a> {
        Pwrite { file, spare: Vec::new(), calls: Calls::default() }
    }
}

impl Writer for Pwrite<'_> {
    fn buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spare)
    }

    fn write(&mut self, offset: u64, mut bytes: Vec<u8>) -> Result<()> {
        self.file.write_all_at(&bytes, offset).map_err(Error::io("write", Object::Output))?;
        self.calls.writes += 1;
        bytes.clear();
        self.spare = bytes;
        Ok(())
    }

    fn finish(&mut self) -> Result<Calls> {
        self.file.sync_all().map_err(Error::io("make durable", Object::Output))?;
        self.calls.fsyncs += 1;
        Ok(self.calls)
    }
}
