//! One node's way to the state store: it can be held, its answers can be lost, it can be shut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use form_node::store::{Change, Compare, Entry, Error, Kv, LeaseId, Listing, Op, TxnResult};
use futures_util::stream::BoxStream;

use crate::hooks::{Hooks, Point};

pub(crate) struct Gate {
    pub(crate) node: usize,
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) hooks: Hooks,
    /// Nothing comes through.
    pub(crate) shut: Arc<AtomicBool>,
}

impl Gate {
    /// For calls that no test hooks by name.
    async fn open_counted(&self, operation: &'static str) -> Result<(), Error> {
        self.open(operation)?;
        match self.hooks.pass(&self.named(operation), |_| false).await {
            true => Ok(()),
            false => Err(Error::Unavailable { operation, source: "it was lost on its way".into() }),
        }
    }

    fn named(&self, operation: &str) -> String {
        format!("node {}: store: {operation}", self.node)
    }

    fn open(&self, operation: &'static str) -> Result<(), Error> {
        match self.shut.load(Ordering::SeqCst) {
            true => Err(Error::Unavailable { operation, source: "the store is out of reach".into() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Kv for Gate {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.open("read")?;
        let here = |point: &Point| matches!(point, Point::Read(node, p) if *node == self.node && key.starts_with(p));
        if !self.hooks.pass(&self.named(&format!("read {key}")), here).await {
            return Err(Error::Unavailable { operation: "read", source: "it was lost on its way".into() });
        }
        self.kv.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.open_counted("list").await?;
        self.kv.list(prefix).await
    }
    async fn txn(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<TxnResult, Error> {
        self.open("a transaction")?;
        let keys: Vec<String> = ops.iter().map(|(Op::Put { key, .. } | Op::Delete { key })| key.clone()).collect();
        let writes = |prefix: &str| keys.iter().any(|key| key.starts_with(prefix));
        let before = |point: &Point| matches!(point, Point::Write(node, p) if *node == self.node && writes(p));
        if !self.hooks.pass(&self.named(&format!("write {keys:?}")), before).await {
            return Err(Error::Unavailable { operation: "a transaction", source: "it was lost on its way".into() });
        }
        let result = self.kv.txn(compares, ops).await?;
        let after = |point: &Point| matches!(point, Point::Written(node, p) if *node == self.node && writes(p));
        if !self.hooks.pass(&self.named(&format!("wrote {keys:?}")), after).await {
            return Err(Error::Unknown { operation: "a transaction", source: "its answer was lost".into() });
        }
        Ok(result)
    }
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.open_counted("grant a lease").await?;
        self.kv.grant(ttl).await
    }
    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.open_counted("keep a lease alive").await?;
        self.kv.keep_alive(lease).await
    }
    async fn time_left(&self, lease: LeaseId) -> Result<Option<Duration>, Error> {
        self.open_counted("read a lease").await?;
        self.kv.time_left(lease).await
    }
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.open_counted("revoke a lease").await?;
        self.kv.revoke(lease).await
    }
    async fn watch(&self, prefix: &str, after: i64) -> Result<BoxStream<'static, Result<Change, Error>>, Error> {
        self.open("watch")?;
        self.kv.watch(prefix, after).await
    }
}
