//! What every signed command begins with: the key, the node, the instance.

use form_node::ApiError;
use form_node::api::types::InstanceView;

use crate::args::{InstanceArgs, KeyArgs, NodeArgs};
use crate::client::{Client, Signer};
use crate::keys;

/// A node to ask and a key to ask with.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) signer: Signer,
}

impl Session {
    /// The key first: a bad one is found without a node.
    pub(super) async fn open(node: NodeArgs, key: &KeyArgs) -> Result<Self, ApiError> {
        let key = keys::signing_key(key)?;
        let client = Client::new(node.node);
        let installation = client.node_view().await?.installation_id;
        Ok(Self { signer: Signer::new(key, installation), client })
    }

    /// The instance that was meant, with the ids that are signed.
    pub(super) async fn instance(&self, instance: &InstanceArgs) -> Result<InstanceView, ApiError> {
        self.client.instance(instance.id_or_name()).await
    }
}
