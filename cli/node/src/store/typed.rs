//! The store as the node uses it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::keys;
use super::kv::{Expect, Kv};
use super::records::{InstallationRecord, Other};
use super::sqlite::SqliteKv;
use super::txn::Txn;

/// The shared state of an installation. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(super) kv: Arc<dyn Kv>,
    installation_id: Arc<str>,
}

/// A record and the revision that wrote it.
pub(super) struct Versioned<T> {
    pub(super) value: T,
    pub(super) revision: i64,
}

impl Store {
    /// Opens `sqlite:PATH`, making it when it is new.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let refused = |reason| Err(Error::Url { url: url.to_owned(), reason });
        match url.split_once(':') {
            Some(("sqlite", "")) => refused("it names no file; give sqlite:PATH"),
            Some(("sqlite", path)) => Self::over(Arc::new(SqliteKv::open(Path::new(path)).await?)).await,
            Some(("etcd", _)) => refused("etcd is not supported yet; give sqlite:PATH"),
            _ => refused("give sqlite:PATH"),
        }
    }

    /// The typed store over a backend. The first to open a new one gives it its installation id.
    pub async fn over(kv: Arc<dyn Kv>) -> Result<Self, Error> {
        let mut store = Self { kv, installation_id: Arc::from("") };
        let installation = loop {
            if let Some(found) = store.read::<InstallationRecord>(keys::INSTALLATION).await? {
                break found.value;
            }
            let new = InstallationRecord { installation_id: random_id()?, other: Other::new() };
            let txn = Txn::new().expect(keys::INSTALLATION, Expect::Absent).put(keys::INSTALLATION, &new)?;
            if store.apply(txn).await? {
                break new;
            }
        };
        store.installation_id = installation.installation_id.into();
        Ok(store)
    }

    /// Names this installation in signed requests: 32 hex.
    pub fn installation_id(&self) -> &str {
        &self.installation_id
    }

    /// The backend, for watches.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    pub(super) async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Versioned<T>>, Error> {
        let Some(entry) = self.kv.get(key).await? else { return Ok(None) };
        Ok(Some(Versioned { value: parse(key, &entry.value)?, revision: entry.mod_revision }))
    }

    pub(super) async fn read_some<T: DeserializeOwned>(&self, key: &str) -> Result<Versioned<T>, Error> {
        self.read(key).await?.ok_or_else(|| Error::Missing { key: key.to_owned() })
    }

    pub(super) async fn read_all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, Error> {
        let listing = self.kv.list(prefix).await?;
        listing.entries.iter().map(|entry| parse(&entry.key, &entry.value)).collect()
    }

    /// False: a condition did not hold, nothing was written.
    pub(super) async fn apply(&self, txn: Txn) -> Result<bool, Error> {
        let (compares, ops) = txn.into_parts();
        Ok(self.kv.txn(compares, ops).await?.succeeded)
    }

    /// Changes one record, again from its newest state whenever another writer came first.
    pub(super) async fn update<T, R>(
        &self,
        operation: &'static str,
        key: &str,
        mut change: impl FnMut(&mut T) -> R + Send,
    ) -> Result<R, Error>
    where
        T: DeserializeOwned + Serialize + Clone + PartialEq + Send + Sync,
        R: Send,
    {
        let mut tries = Tries::new(operation);
        loop {
            let Versioned { value: before, revision } = self.read_some::<T>(key).await?;
            let mut after = before.clone();
            let result = change(&mut after);
            if after == before {
                return Ok(result);
            }
            let txn = Txn::new().expect(key, Expect::ModRevision(revision)).put(key, &after)?;
            if self.apply(txn).await? {
                return Ok(result);
            }
            tries.next().await?;
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("installation_id", &self.installation_id).finish_non_exhaustive()
    }
}

/// Counts how often a transaction was overtaken.
pub(super) struct Tries {
    operation: &'static str,
    tries: u32,
}

impl Tries {
    pub(super) fn new(operation: &'static str) -> Self {
        Self { operation, tries: 0 }
    }

    /// Waits a little, longer each time; an error once the limit is reached.
    pub(super) async fn next(&mut self) -> Result<(), Error> {
        self.tries += 1;
        if self.tries >= super::limits::TXN_TRIES_MAX {
            return Err(Error::Contended { operation: self.operation, tries: self.tries });
        }
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(self.tries))).await;
        Ok(())
    }
}

/// 16 random bytes, hex.
pub(super) fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|source| Error::Unavailable { operation: "get random bytes", source: source.into() })?;
    Ok(hex::encode(bytes))
}

pub(super) fn now_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value).map_err(|source| Error::Corrupt { key: key.to_owned(), source: source.into() })
}
