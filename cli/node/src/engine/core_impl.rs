//! The engine as the API sees it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use form_proto::Plan;
use form_transport::BiStream;
use form_vmm_hooks::VmState;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::attempt::{Attempt, MemberInfo};
use super::driver::Input;
use super::instance::LocalInstance;
use super::lifecycle::{self, in_attempt, vmm_error};
use super::limits::{COMMIT_TIMEOUT, LEASE, LEASE_RENEW, SETTLE_POLL};
use super::preflight::vmm_view;
use super::recover::attempt_id;
use super::{Node, coordinate, ending, flight, seed};
use crate::api::flight::FlightView;
use crate::api::health::HealthView;
use crate::api::types::{AttemptEvent, AttemptView, CommitAccepted, CommitVmRequest, CreateRequest, Created, NodeView};
use crate::auth::{Address, SignedRequest};
use crate::core::{Core, Signed};
use crate::error::{ApiError, ErrorCode};
use crate::spec::InstanceSpec;
use crate::store::{AttemptRecord, AttemptState, Begin, BeginRequest, ParticipantRecord, Store, normal_id};

/// A checked wish to commit.
pub(crate) struct Intent {
    pub(crate) signer: Address,
    pub(crate) request: SignedRequest,
    /// As its hash was signed.
    pub(crate) body: Vec<u8>,
    pub(crate) request_hash: [u8; 32],
    /// Instance ids; empty for a cluster's first commit.
    pub(crate) targets: Vec<String>,
    pub(crate) parent: Option<String>,
    pub(crate) description: String,
    pub(crate) timeout: Duration,
}

/// Begins an attempt from an instance of this node.
pub(crate) async fn begin(node: &Arc<Node>, local: &LocalInstance, intent: Intent) -> Result<CommitAccepted, ApiError> {
    // The same request again is the same attempt, whatever has become of it since.
    if let Some(attempt_id) = node.store.attempt_of_request(&hex::encode(intent.request_hash)).await? {
        return again(node, local, attempt_id).await;
    }
    ending::refuse(node)?;
    // First: what is in an attempt may be paused by it.
    if let Some(attempt) = node.busy_with(&local.instance_id) {
        return Err(in_attempt(&local.name, &hex::encode(attempt.0)));
    }
    let vm = node.vms.current(&local.instance_id);
    let running = match &vm {
        Some(vm) => vm.state().await.map_err(vmm_error)? == VmState::Running,
        None => false,
    };
    if !running {
        return Err(ApiError::new(ErrorCode::WrongState, format!("{} is not running", local.name))
            .remedy(format!("start it, then commit again: form manage start --name {}", local.name)));
    }
    let cluster = node.store.cluster(&local.cluster_id).await?;
    let cluster = cluster.ok_or_else(|| ApiError::internal("begin", "the store does not know the cluster"))?;
    if cluster.owner != local.owner {
        return Err(ApiError::new(
            ErrorCode::NotAllowed,
            format!("the owner of {} is not the one pinned here", local.name),
        )
        .cause(format!("the store names {}, this node knows {}", cluster.owner, local.owner))
        .remedy("find out who changed the state store"));
    }
    let mut members = Vec::new();
    let mut participants = Vec::new();
    for id in std::iter::once(&local.instance_id).chain(&intent.targets) {
        let record = node.store.instance(id).await?;
        let record = record.filter(|r| r.cluster_id == local.cluster_id).ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("target {id} is not in the cluster of {}", local.name))
                .remedy("`form manage instances` shows who is")
        })?;
        members.push(MemberInfo {
            instance_id: id.clone(),
            name: record.name.clone(),
            peer: node.peer(&record.node_id).await?,
        });
        participants.push(ParticipantRecord {
            instance_id: id.clone(),
            node_id: record.node_id,
            lifecycle_generation: record.lifecycle_generation,
        });
    }
    let request = BeginRequest {
        cluster_id: local.cluster_id.clone(),
        source_instance: local.instance_id.clone(),
        parent: intent.parent.clone(),
        request_hash: hex::encode(intent.request_hash),
        coordinator: node.id().to_string(),
        participants,
        membership_rev: cluster.membership_rev,
        began_ms: lifecycle::unix_ms(),
        lease: LEASE,
    };
    let targets = members.iter().skip(1).map(|m| m.name.clone()).collect();
    let accepted = |attempt_id| CommitAccepted {
        attempt_id,
        instance_id: local.instance_id.clone(),
        node_id: node.id().to_string(),
        targets,
    };
    let conflict = |message: String| ApiError::new(ErrorCode::Conflict, message);
    let record = match node.store.begin(&request).await? {
        Begin::Begun { attempt } => *attempt,
        Begin::AlreadySeen { attempt_id } => return again(node, local, attempt_id).await,
        Begin::Replayed => {
            return Err(
                ApiError::new(ErrorCode::ReplayedRequest, "this very request was made before").remedy("sign a new one")
            );
        }
        Begin::HeadMoved { head } => {
            let head = head.unwrap_or_else(|| "none".into());
            return Err(conflict(format!("{} does not stand on the cluster's head, which is {head}", local.name))
                .cause("another commit won since")
                .remedy(
                    "commit from an instance that runs the head, or bring this one along with a commit from there",
                ));
        }
        Begin::Busy { attempt_id } => return Err(in_attempt(&local.name, &attempt_id)),
        Begin::MembershipChanged => {
            return Err(conflict("instances joined or left the cluster meanwhile".into()).remedy("commit again"));
        }
    };
    let id = attempt_id(&record.attempt_id)?;
    let members_count = u16::try_from(members.len()).map_err(|e| ApiError::internal("count the members", e))?;
    let plan = Plan {
        attempt: id,
        epoch: form_proto::Epoch(record.epoch),
        members: members_count,
        give_up_at: Some(node.now().after(u64::try_from(intent.timeout.as_millis()).unwrap_or(u64::MAX))),
    };
    tracing::info!(attempt = record.attempt_id, source = local.name, epoch = record.epoch, "begun");
    let transport = node.transport()?;
    let signed = (intent.signer, intent.request, intent.body);
    let accepted = accepted(record.attempt_id.clone());
    let attempt = Attempt::new(id, record, members, signed, intent.description, intent.timeout, |peer| {
        transport.socket_bytes(peer)
    });
    let attempt = Arc::new(attempt);
    coordinate::keep_lock(node, &attempt, LEASE_RENEW);
    node.add_attempt(attempt);
    node.set_committing(&local.instance_id, id);
    node.input(Input::Begin(plan));
    Ok(accepted)
}

/// Whom a commit brings along: those that were asked for, each once, or all siblings.
fn targets(asked: Option<Vec<String>>, source: &LocalInstance, siblings: Vec<String>) -> Result<Vec<String>, ApiError> {
    let Some(asked) = asked else { return Ok(siblings) };
    let targets: BTreeSet<_> = asked.into_iter().map(|id| normal_id(&id).unwrap_or(id)).collect();
    let refused = |message: String| {
        ApiError::new(ErrorCode::BadRequest, message)
            .remedy("give the ids of other instances of the cluster, or leave targets out to mean all of them")
    };
    if targets.is_empty() {
        return Err(refused("targets is empty".into()));
    }
    if targets.contains(&source.instance_id) {
        return Err(refused(format!("{} is among the targets of its own commit", source.name)));
    }
    Ok(targets.into_iter().collect())
}

/// Nobody is waited for: each participant has acknowledged a commit, and an attempt that was aborted is undone by each
/// alone.
fn is_over(record: &AttemptRecord) -> bool {
    record.state == AttemptState::Aborted || record.is_settled()
}

/// Its id if it is gone.
async fn name_of(node: &Node, instance_id: &str) -> Result<String, ApiError> {
    let record = node.store.instance(instance_id).await?;
    Ok(record.map_or_else(|| instance_id.to_owned(), |instance| instance.name))
}

/// The answer to a request that was made before: the attempt that it began.
async fn again(node: &Arc<Node>, local: &LocalInstance, attempt_id: String) -> Result<CommitAccepted, ApiError> {
    let record = node.store.attempt(&attempt_id).await?;
    let mut targets = Vec::new();
    for participant in record.iter().flat_map(|r| &r.participants).filter(|p| p.instance_id != local.instance_id) {
        targets.push(name_of(node, &participant.instance_id).await?);
    }
    let node_id = record.map_or_else(|| node.id().to_string(), |r| r.coordinator);
    Ok(CommitAccepted { attempt_id, instance_id: local.instance_id.clone(), node_id, targets })
}

/// The node behind the API.
pub(crate) struct Engine {
    pub(crate) node: Arc<Node>,
}

#[async_trait]
impl Core for Engine {
    fn store(&self) -> &Store {
        &self.node.store
    }

    fn node_id(&self) -> String {
        self.node.id().to_string()
    }

    fn installation_id(&self) -> String {
        self.node.store.installation_id().to_owned()
    }

    async fn pinned_owner(&self, instance_id: &str) -> Result<Option<Address>, ApiError> {
        Ok(self.node.db.instance(instance_id)?.map(|local| local.owner))
    }

    async fn view(&self) -> Result<NodeView, ApiError> {
        let node = &self.node;
        let (vmm, vmm_error) = match node.vmms.qemu.host().await {
            Ok(facts) => (Some(vmm_view(&facts)), None),
            Err(error) => (None, Some(vmm_error(error).to_string())),
        };
        Ok(NodeView {
            node_id: node.id().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            installation_id: self.installation_id(),
            api: node.config.api.to_string(),
            quic: node.config.quic.to_string(),
            store: node.config.store.clone(),
            vmm,
            vmm_error,
            engine: super::run::engine_name(node.engine).to_owned(),
            instances: node.db.instances()?.len() as u64,
            data_free_bytes: lifecycle::free_bytes(node.layout.root())?,
        })
    }

    async fn flight(&self) -> Result<FlightView, ApiError> {
        flight::view(&self.node).await
    }

    async fn health(&self) -> Result<HealthView, ApiError> {
        super::doctor::of_running(&self.node).await
    }

    async fn create(&self, signed: Signed, request: CreateRequest) -> Result<Created, ApiError> {
        crate::store::check_name(&request.name)?;
        match (request.spec, request.like) {
            (Some(spec), None) => {
                let spec = InstanceSpec::parse(&spec)?;
                let local = lifecycle::create(&self.node, signed.authorised.signer(), &request.name, spec).await?;
                Ok(Created {
                    instance_id: local.instance_id,
                    cluster_id: local.cluster_id,
                    snapshot_id: None,
                    received_bytes: 0,
                })
            }
            (None, Some(like)) => {
                let record = self.node.store.find_instance(&like).await?.ok_or_else(|| {
                    ApiError::new(ErrorCode::NotFound, format!("no instance is called {like}"))
                        .remedy("`form manage instances` shows those there are")
                })?;
                let joined = seed::join(&self.node, &signed.request, &request.name, &record).await?;
                Ok(Created {
                    instance_id: joined.local.instance_id,
                    cluster_id: joined.local.cluster_id,
                    snapshot_id: Some(joined.commit_id),
                    received_bytes: joined.received_bytes,
                })
            }
            _ => Err(ApiError::new(ErrorCode::BadRequest, "an instance is made from a spec or like another one")
                .remedy("give exactly one of spec and like")),
        }
    }

    async fn start(&self, instance_id: &str) -> Result<(), ApiError> {
        lifecycle::start(&self.node, instance_id).await
    }

    async fn stop(&self, instance_id: &str) -> Result<(), ApiError> {
        lifecycle::stop(&self.node, instance_id).await
    }

    async fn delete(&self, instance_id: &str) -> Result<(), ApiError> {
        lifecycle::delete(&self.node, instance_id).await
    }

    async fn console(&self, instance_id: &str) -> Result<PathBuf, ApiError> {
        let local = self.node.local(instance_id)?;
        if !local.has_device() {
            return Err(ApiError::new(ErrorCode::Unsupported, format!("{} is only files: no console", local.name)));
        }
        let vm = self.node.vms.current(instance_id).ok_or_else(|| {
            ApiError::new(ErrorCode::WrongState, format!("{} is not running", local.name))
                .remedy(format!("start it: form manage start --name {}", local.name))
        })?;
        Ok(vm.console())
    }

    async fn commit(
        &self,
        signed: Signed,
        instance_id: &str,
        request: CommitVmRequest,
    ) -> Result<CommitAccepted, ApiError> {
        let node = &self.node;
        if request.dry_run == Some(true) {
            return Err(ApiError::new(ErrorCode::Unsupported, "dry_run is not supported yet").remedy("leave it out"));
        }
        let description = request.description.unwrap_or_default();
        let longest = form_transport::limits::DESCRIPTION_BYTES_MAX;
        if description.len() > longest {
            return Err(ApiError::new(
                ErrorCode::BadRequest,
                format!("the description has {} bytes", description.len()),
            )
            .remedy(format!("keep it within {longest} bytes")));
        }
        if description.chars().any(|c| c.is_control() && c != '\n') {
            return Err(ApiError::new(ErrorCode::BadRequest, "the description holds control characters")
                .cause("they would act on the terminal of whoever reads the history")
                .remedy("say it in plain text"));
        }
        let local = node.local(instance_id)?;
        let record = node.store.instance(instance_id).await?;
        let record = record.ok_or_else(|| ApiError::internal("commit", "the store does not know the instance"))?;
        let cluster = node.store.cluster(&local.cluster_id).await?;
        let members = cluster.map(|c| c.members.into_keys().collect::<Vec<_>>()).unwrap_or_default();
        let siblings: Vec<_> = members.into_iter().filter(|id| id != instance_id).collect();
        if siblings.is_empty() {
            let name = &local.name;
            return Err(ApiError::new(ErrorCode::WrongState, format!("{name} is alone in its cluster"))
                .cause("a commit brings the other instances of the cluster to its state, and there is none")
                .remedy(format!("make a replica first: form manage create --name NAME --like {name}")));
        }
        if let Some(seen) = &request.parent
            && Some(seen) != record.current_commit.as_ref()
        {
            let current = record.current_commit.as_deref().unwrap_or("none");
            return Err(ApiError::new(ErrorCode::Conflict, format!("{} does not run {seen} any more", local.name))
                .cause(format!("its current commit is {current}"))
                .remedy("look at what changed, then commit again"));
        }
        begin(
            node,
            &local,
            Intent {
                signer: signed.authorised.signer(),
                request_hash: signed.authorised.request_hash(),
                request: signed.request,
                body: signed.body,
                targets: targets(request.targets, &local, siblings)?,
                parent: record.current_commit,
                description,
                timeout: request.timeout_s.map_or(COMMIT_TIMEOUT, Duration::from_secs),
            },
        )
        .await
    }

    async fn attempt(&self, attempt: &str) -> Result<AttemptView, ApiError> {
        let id = attempt_id(attempt)?;
        let record = self.node.store.attempt(attempt).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("no attempt {attempt} has begun"))
                .remedy("`form manage status` shows what is under way")
        })?;
        let last_event = self.node.attempt(id).and_then(|a| a.events.last());
        let settled = match &last_event {
            Some(event) => matches!(event, AttemptEvent::Settled { .. }),
            None => is_over(&record),
        };
        let mut waits_for = Vec::new();
        if record.commit_id.is_some() {
            for late in record.participants.iter().filter(|p| !record.acknowledged.contains(&p.instance_id)) {
                waits_for.push(name_of(&self.node, &late.instance_id).await?);
            }
        }
        Ok(AttemptView {
            attempt_id: attempt.to_owned(),
            waits_for,
            settled,
            instance_id: record.source_instance,
            outcome: match record.state {
                AttemptState::Pending => "pending",
                AttemptState::Committed => "committed",
                AttemptState::Aborted => "aborted",
            }
            .to_owned(),
            last_event,
        })
    }

    async fn attempt_events(&self, attempt: &str) -> Result<BoxStream<'static, AttemptEvent>, ApiError> {
        if let Some(attempt) = self.node.attempt(attempt_id(attempt)?) {
            return Ok(attempt.events.stream());
        }
        // From before a restart: what is left of it is how it ended, and who has acknowledged that.
        let view = self.attempt(attempt).await?;
        let record = self.node.store.attempt(attempt).await?;
        let ended = match record.and_then(|r| r.commit_id) {
            Some(snapshot_id) => AttemptEvent::Committed { snapshot_id },
            None => AttemptEvent::Failed {
                error: ApiError::new(ErrorCode::Aborted, format!("the attempt is {}", view.outcome))
                    .cause("the node that coordinated it was restarted")
                    .remedy("`form manage status` says what the cluster runs; commit again"),
            },
        };
        let (node, attempt) = (Arc::clone(&self.node), attempt.to_owned());
        let settled = stream::once(async move {
            // A store that is away for a moment says it later.
            while !matches!(node.store.attempt(&attempt).await, Ok(record) if record.as_ref().is_none_or(is_over)) {
                tokio::time::sleep(SETTLE_POLL).await;
            }
            AttemptEvent::Settled { summary: None }
        });
        Ok(stream::iter([ended]).chain(settled).boxed())
    }

    async fn peer_http(&self, node_id: &str) -> Result<BiStream, ApiError> {
        let peer = self.node.peer(node_id).await?;
        self.node.transport()?.open_http(&peer).await.map_err(super::serve::unreachable)
    }
}
