//! Nodes, and requests that were seen.

use super::error::Error;
use super::keys;
use super::kv::{Expect, Op};
use super::records::{NodeRecord, Other, RequestRecord};
use super::txn::Txn;
use super::typed::Store;

impl Store {
    /// Enrols a node, or changes its addresses.
    pub async fn put_node(&self, node: &NodeRecord) -> Result<(), Error> {
        let txn = Txn::new().put(&keys::node(&node.node_id), node)?;
        self.apply(txn).await.map(drop)
    }

    /// A node by its id.
    pub async fn node(&self, node_id: &str) -> Result<Option<NodeRecord>, Error> {
        Ok(self.read(&keys::node(node_id)).await?.map(|found| found.value))
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        self.read_all(keys::NODES).await
    }

    /// Forgets a node: its key is refused from now on.
    pub async fn remove_node(&self, node_id: &str) -> Result<(), Error> {
        self.kv.txn(Vec::new(), vec![Op::Delete { key: keys::node(node_id) }]).await.map(drop)
    }

    /// Notes a request (SHA-256 of its message, hex) that begins no attempt, before it is acted on. `now_ms` is Unix
    /// time. False: it was made before. After [`Error::Unknown`] the request must be signed anew.
    pub async fn note_request(&self, request_hash: &str, now_ms: u64) -> Result<bool, Error> {
        let key = keys::request(request_hash);
        let record = RequestRecord { attempt_id: None, noted_ms: Some(now_ms), other: Other::new() };
        self.apply(Txn::new().expect(&key, Expect::Absent).put(&key, &record)?).await
    }

    /// When a request was noted; `None` if it never was.
    pub async fn noted_ms(&self, request_hash: &str) -> Result<Option<u64>, Error> {
        let found = self.read::<RequestRecord>(&keys::request(request_hash)).await?;
        Ok(found.and_then(|request| request.value.noted_ms))
    }
}
