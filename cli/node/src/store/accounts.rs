//! Rights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::Error;
use super::keys;
use super::kv::Expect;
use super::records::{ClusterRecord, GrantRecord};
use super::txn::Txn;
use super::typed::{Store, Tries};
use crate::auth::{Address, Level, held_level, recover};

/// Where grants are given and taken back.
const PATH: &str = "/api/v1/accounts/grants";

/// What an owner signs, as JSON: `POST` gives, `DELETE` takes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantBody {
    /// Who gets it.
    pub address: Address,
    /// On which instance, and with it on its cluster.
    pub instance_id: String,
    /// How much it may do; not said when it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Above that of the grant it replaces.
    pub version: u64,
}

/// The answer to [`Store::put_grant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutGrant {
    /// It holds from now on.
    Stored,
    /// There is a grant of this version or a later one.
    OutOfDate {
        /// Its version.
        version: u64,
    },
}

impl Store {
    /// Gives a right or takes it back; the version decides which of two is the later one.
    pub async fn put_grant(&self, grant: &GrantRecord) -> Result<PutGrant, Error> {
        let key = keys::grant(&grant.cluster_id, &grant.address.to_string());
        let mut tries = Tries::new("change a grant");
        loop {
            let found = self.read::<GrantRecord>(&key).await?;
            let expect = match &found {
                Some(found) if found.value.version >= grant.version => {
                    return Ok(PutGrant::OutOfDate { version: found.value.version });
                }
                Some(found) => Expect::ModRevision(found.revision),
                None => Expect::Absent,
            };
            if self.apply(Txn::new().expect(&key, expect).put(&key, grant)?).await? {
                return Ok(PutGrant::Stored);
            }
            tries.next().await?;
        }
    }

    /// All grants of a cluster, those taken back among them.
    pub async fn grants(&self, cluster_id: &str) -> Result<Vec<GrantRecord>, Error> {
        self.read_all(&keys::grants(cluster_id)).await
    }

    /// What an address may do in a cluster. A grant counts only if its own signature says that the owner gave it.
    pub async fn held_level(&self, cluster: &ClusterRecord, address: Address) -> Result<Option<Level>, Error> {
        let mut proven = BTreeMap::new();
        for grant in self.grants(&cluster.cluster_id).await? {
            if let Some(level) = grant.level
                && !grant.revoked
                && grant.is_proven(cluster.owner, &cluster.cluster_id, self.installation_id())
            {
                proven.insert(grant.address, level);
            }
        }
        Ok(held_level(cluster.owner, address, proven))
    }
}

impl GrantRecord {
    /// True if `owner` signed exactly this, for this cluster of this installation.
    pub fn is_proven(&self, owner: Address, cluster_id: &str, installation_id: &str) -> bool {
        let Ok(recovered) = recover(&self.request) else { return false };
        let Ok(body) = serde_json::from_str::<GrantBody>(&self.body) else { return false };
        let message = recovered.message();
        recovered.signer() == owner
            && message.installation == installation_id
            && message.cluster == cluster_id
            && self.cluster_id == cluster_id
            && message.instance == self.instance_id
            && message.path == PATH
            && message.method == if self.revoked { "DELETE" } else { "POST" }
            && message.body_sha256 == <[u8; 32]>::from(Sha256::digest(&self.body))
            && body.address == self.address
            && body.instance_id == self.instance_id
            && body.level == self.level
            && body.version == self.version
    }
}
