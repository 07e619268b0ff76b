//! A transaction in the making.

use serde::Serialize;

use super::error::Error;
use super::kv::{Compare, Expect, LeaseId, Op};

/// Conditions and writes, collected.
#[derive(Default)]
pub(super) struct Txn {
    compares: Vec<Compare>,
    ops: Vec<Op>,
}

impl Txn {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn expect(mut self, key: &str, expect: Expect) -> Self {
        self.compares.push(Compare { key: key.to_owned(), expect });
        self
    }

    pub(super) fn put<T: Serialize>(self, key: &str, record: &T) -> Result<Self, Error> {
        self.put_with(key, record, None)
    }

    pub(super) fn put_leased<T: Serialize>(self, key: &str, record: &T, lease: LeaseId) -> Result<Self, Error> {
        self.put_with(key, record, Some(lease))
    }

    pub(super) fn delete(mut self, key: &str) -> Self {
        self.ops.push(Op::Delete { key: key.to_owned() });
        self
    }

    pub(super) fn into_parts(self) -> (Vec<Compare>, Vec<Op>) {
        (self.compares, self.ops)
    }

    fn put_with<T: Serialize>(mut self, key: &str, record: &T, lease: Option<LeaseId>) -> Result<Self, Error> {
        let value = serde_json::to_vec(record)
            .map_err(|source| Error::Corrupt { key: key.to_owned(), source: source.into() })?;
        self.ops.push(Op::Put { key: key.to_owned(), value, lease });
        Ok(self)
    }
}
