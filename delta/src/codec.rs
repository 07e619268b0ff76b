//! Fixed-width little-endian fields, read with a place in every error.

use crate::{
    Hash, Result,
    error::{Error, Object},
};

/// Reads fields off the front of bytes that came from outside.
pub(crate) struct Reader<'a> {
    object: Object,
    rest: &'a [u8],
    offset_bytes: u64,
}

impl<'a> Reader<'a> {
    /// `offset_bytes` is where `bytes` begins within the object; it only serves messages.
    pub(crate) fn new(object: Object, bytes: &'a [u8], offset_bytes: u64) -> Reader<'a> {
        Reader { object, rest: bytes, offset_bytes }
    }

    pub(crate) fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged("it ends in the middle of a field"))?;
        self.rest = rest;
        self.offset_bytes += N as u64;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn hash(&mut self) -> Result<Hash> {
        Ok(Hash::from_bytes(self.array()?))
    }

    /// Reads magic and version, which open every format.
    pub(crate) fn opening(&mut self, magic: [u8; 4], version: u16) -> Result<()> {
        if self.array()? != magic {
            return Err(Error::damaged(self.object, self.offset_bytes - 4, "the magic number is another one"));
        }
        let found = self.u16()?;
        if found != version {
            return Err(Error::Version { object: self.object, found, supported: version });
        }
        Ok(())
    }

    /// An error at the place reached so far.
    pub(crate) fn damaged(&self, reason: &'static str) -> Error {
        Error::damaged(self.object, self.offset_bytes, reason)
    }

    pub(crate) fn limit(&self, what: &'static str, value: u64, limit: u64) -> Result<()> {
        if value <= limit {
            return Ok(());
        }
        Err(Error::Limit { object: self.object, what, value, limit })
    }
}
