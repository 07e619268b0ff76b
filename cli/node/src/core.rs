//! What the API asks of a node. The engine is the one implementation; the seam keeps HTTP out of it.

use std::path::PathBuf;

use async_trait::async_trait;
use form_transport::BiStream;
use futures_util::stream::BoxStream;

use crate::api::flight::FlightView;
use crate::api::health::HealthView;
use crate::api::types::{AttemptEvent, AttemptView, CommitAccepted, CommitVmRequest, CreateRequest, Created, NodeView};
use crate::auth::{Address, Authorised, SignedRequest};
use crate::error::ApiError;
use crate::store::Store;

/// A request whose signature, age and right were checked, with the bytes that prove it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Who, and the request's hash.
    pub authorised: Authorised,
    /// The very bytes that were signed; they travel to each target, which checks them again.
    pub request: SignedRequest,
    /// What the request says, as its hash was signed.
    pub body: Vec<u8>,
}

/// The node as the API sees it.
#[async_trait]
pub trait Core: Send + Sync + 'static {
    /// The state store.
    fn store(&self) -> &Store;
    /// This node's id, 64 hex.
    fn node_id(&self) -> String;
    /// The installation that requests must name.
    fn installation_id(&self) -> String;
    /// The owner that was pinned here when the instance was made; `None` for an instance of another node.
    async fn pinned_owner(&self, instance_id: &str) -> Result<Option<Address>, ApiError>;
    /// What the node is and can do.
    async fn view(&self) -> Result<NodeView, ApiError>;
    /// What is in flight here, without waiting for the state store.
    async fn flight(&self) -> Result<FlightView, ApiError>;
    /// What is right and wrong with this node.
    async fn health(&self) -> Result<HealthView, ApiError>;
    /// Makes an instance on this node.
    async fn create(&self, signed: Signed, request: CreateRequest) -> Result<Created, ApiError>;
    /// Boots a stopped instance of this node.
    async fn start(&self, instance_id: &str) -> Result<(), ApiError>;
    /// Stops a running instance of this node.
    async fn stop(&self, instance_id: &str) -> Result<(), ApiError>;
    /// Deletes a stopped instance of this node, with its files.
    async fn delete(&self, instance_id: &str) -> Result<(), ApiError>;
    /// The Unix socket of an instance's serial console.
    async fn console(&self, instance_id: &str) -> Result<PathBuf, ApiError>;
    /// Begins a commit from an instance of this node; answers as soon as the attempt has begun.
    /// `instance_id` is resolved already; the request came signed for it.
    async fn commit(
        &self,
        signed: Signed,
        instance_id: &str,
        request: CommitVmRequest,
    ) -> Result<CommitAccepted, ApiError>;
    /// An attempt that this node coordinates or coordinated.
    async fn attempt(&self, attempt_id: &str) -> Result<AttemptView, ApiError>;
    /// Its events from the first on, ending when it is settled.
    async fn attempt_events(&self, attempt_id: &str) -> Result<BoxStream<'static, AttemptEvent>, ApiError>;
    /// The API of another node, over the nodes' own transport.
    async fn peer_http(&self, node_id: &str) -> Result<BiStream, ApiError>;
}
