//! How an instance joins a cluster: its node gets the images of the cluster's head, once and in full, as the base
//! of every later commit, and the instance starts from the head's disks.
//!
//! A cluster that has no commit yet gets its first one here, from the running instance that is joined: an attempt
//! with the source as its only participant.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use form_delta::{FrameIndex, Hash};
use form_transport::{ArtifactKind, Commit, NodeId};
use sha2::{Digest, Sha256};

use super::build::{Build, build, chain, delta, not_fetched};
use super::instance::{LocalInstance, file_name};
use super::layout::make_dir;
use super::lifecycle::{self, name_taken};
use super::limits::{COMMIT_TIMEOUT, JOIN_POLL, JOIN_WAIT};
use super::node::Outgoing;
use super::peer::{Answer, Question, Seeding};
use super::serve::ask;
use super::{Node, bases, blocking, coordinate, core_impl, encode, offer as offers};
use crate::auth::{Expected, Level, SignedRequest, authorise, check_again};
use crate::error::{ApiError, ErrorCode};
use crate::spec::InstanceSpec;
use crate::store::{ClusterRecord, InstanceRecord, Join, Outcome};

/// A joined instance.
pub(crate) struct Joined {
    pub(crate) local: LocalInstance,
    pub(crate) commit_id: String,
    pub(crate) received_bytes: u64,
}

/// Makes an instance on this node in the cluster of `like`.
pub(crate) async fn join(
    node: &Arc<Node>,
    request: &SignedRequest,
    name: &str,
    like: &InstanceRecord,
) -> Result<Joined, ApiError> {
    let deadline = tokio::time::Instant::now() + JOIN_WAIT;
    loop {
        match try_join(node, request, name, like).await {
            Err(error) if error.code == ErrorCode::Conflict && tokio::time::Instant::now() < deadline => {
                if node.store.find_instance(name).await?.is_some() {
                    return Err(error);
                }
                tracing::info!(%error, "joining again");
                tokio::time::sleep(JOIN_POLL).await;
            }
            done => return done,
        }
    }
}

async fn try_join(
    node: &Arc<Node>,
    request: &SignedRequest,
    name: &str,
    like: &InstanceRecord,
) -> Result<Joined, ApiError> {
    if let Some(taken) = node.store.find_instance(name).await? {
        return Err(name_taken(name, &taken.instance_id));
    }
    let cluster = cluster_of(node, like).await?;
    let host = node.peer(&like.node_id).await?;
    let head = match cluster.head {
        Some(head) => head,
        None => first_commit(node, &host, request, like).await?,
    };
    let held = bases::usable(&node.layout, &like.cluster_id).iter().map(Hash::to_string).collect();
    let question = Question::Seed { instance: like.instance_id.clone(), request: request.clone(), roots: held };
    let seeding = match ask(node, &host, &question).await? {
        Answer::Seeding(seeding) => *seeding,
        Answer::Refused { error } => return Err(error),
        _ => return Err(ApiError::internal("ask for the head's images", "another question was answered")),
    };
    let local = lifecycle::local(
        &lifecycle::random_id()?,
        name,
        &like.cluster_id,
        cluster.owner,
        InstanceSpec { mac: None, ..seeding.spec.clone() },
    );
    let received = match local.spec.check_boot_files() {
        Ok(()) => receive(node, &host, &head, &seeding, &local).await,
        Err(error) => Err(error),
    };
    let told = ask(node, &host, &Question::SeedDone { session: seeding.session.clone() }).await;
    if let Err(error) = told {
        tracing::debug!(%error, "the end of a seeding was not told");
    }
    let staging = node.layout.staging_attempt(session_id(&seeding.session)?);
    super::layout::remove_dir(&staging).map_err(|e| ApiError::io("remove", &staging, &e))?;
    let joined = match received {
        Ok(received_bytes) => enter(node, &local, &head).await.map(|()| received_bytes),
        Err(error) => Err(error),
    };
    match joined {
        Ok(received_bytes) => Ok(Joined { local, commit_id: head, received_bytes }),
        Err(error) => {
            lifecycle::undo(node, &local);
            Err(error)
        }
    }
}

async fn cluster_of(node: &Node, like: &InstanceRecord) -> Result<ClusterRecord, ApiError> {
    let cluster = node.store.cluster(&like.cluster_id).await?;
    cluster.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("the cluster of {} is gone", like.name)))
}

async fn first_commit(
    node: &Arc<Node>,
    host: &form_transport::PeerAddr,
    request: &SignedRequest,
    like: &InstanceRecord,
) -> Result<String, ApiError> {
    let question = Question::Origin { instance: like.instance_id.clone(), request: request.clone() };
    match ask(node, host, &question).await? {
        Answer::Began { attempt } => match node.store.decided(&attempt).await? {
            Outcome::Committed { commit_id } => {
                settled(node, &attempt).await?;
                Ok(commit_id)
            }
            _ => Err(ApiError::new(
                ErrorCode::Aborted,
                format!("the cluster's first commit, from {}, failed", like.name),
            )
            .remedy(format!("see the log of node {}, then try again", like.node_id))),
        },
        Answer::Refused { error } => Err(error),
        _ => Err(ApiError::internal("ask for a first commit", "another question was answered")),
    }
}

/// The source's base is in place once it has acknowledged.
async fn settled(node: &Node, attempt: &str) -> Result<(), ApiError> {
    let deadline = tokio::time::Instant::now() + JOIN_WAIT;
    while !node.store.attempt(attempt).await?.is_none_or(|a| a.is_settled()) {
        if tokio::time::Instant::now() > deadline {
            return Err(ApiError::new(ErrorCode::Unavailable, "the cluster's first commit does not settle")
                .remedy("see the log of the source's node, then try again"));
        }
        tokio::time::sleep(JOIN_POLL).await;
    }
    Ok(())
}

async fn receive(
    node: &Arc<Node>,
    host: &form_transport::PeerAddr,
    head: &str,
    seeding: &Seeding,
    local: &LocalInstance,
) -> Result<u64, ApiError> {
    let corrupt = |cause: String| ApiError::new(ErrorCode::Aborted, "the head's images can't be used").cause(cause);
    let commit = hex::decode(&seeding.commit).map_err(|e| corrupt(e.to_string()))?;
    let commit = Commit::decode(&commit).map_err(|e| corrupt(chain(&e)))?;
    if hex::encode(commit.id()) != head || commit.cluster != local.cluster_id {
        return Err(corrupt("they are of another commit than the head".into()));
    }
    if seeding.indexes.len() != commit.artifacts.len() {
        return Err(corrupt("not every image has its frames".into()));
    }
    let session = session_id(&seeding.session)?;
    let staging = node.layout.staging(session, &local.instance_id);
    make_dir(&staging).map_err(|e| ApiError::io("make", &staging, &e))?;
    let mut builds = Vec::new();
    for (artifact, index) in commit.artifacts.iter().zip(&seeding.indexes) {
        let hash = index.parse().map_err(|e| corrupt(format!("{index}: {e}")))?;
        let index = node.transport()?.fetch_index(host, session.0, hash).await;
        let index = index.map_err(|error| not_fetched(&artifact.name, error))?;
        let one = Build {
            cluster: local.cluster_id.clone(),
            session: session.0,
            from: *host,
            artifact: artifact.name.clone(),
            root: artifact.root,
            index,
            staging: staging.clone(),
        };
        builds.push(build(node, one, Arc::new(|_, _, _| {})));
    }
    let mut received = 0;
    for built in futures_util::future::join_all(builds).await {
        received += built?;
    }
    let (layout, local) = (node.layout.clone(), local.clone());
    let _alone = node.base_lock.lock().await;
    blocking("put the head's images in place", move || {
        let artifacts = commit.artifacts.iter().map(|a| (a.name.as_str(), a.root));
        bases::advance(&layout, &local.cluster_id, &staging, artifacts)?;
        let live = layout.live(&local.instance_id, &local.live);
        make_dir(&live).map_err(|e| ApiError::io("make", &live, &e))?;
        for disk in commit.artifacts.iter().filter(|a| a.kind == ArtifactKind::Disk) {
            let base = layout.base_image(&local.cluster_id, disk.root);
            form_delta::clone_image(&base, &live.join(file_name(&disk.name))).map_err(|e| delta(&disk.name, e))?;
        }
        Ok(())
    })
    .await?;
    Ok(received)
}

async fn enter(node: &Arc<Node>, local: &LocalInstance, head: &str) -> Result<(), ApiError> {
    node.db.put_instance(local)?;
    let record = InstanceRecord { current_commit: Some(head.to_owned()), ..lifecycle::record(node, local) };
    let conflict = |message: &str| Err(ApiError::new(ErrorCode::Conflict, message.to_owned()).remedy("try again"));
    match node.store.join_cluster(&record).await? {
        Join::Joined { .. } => Ok(()),
        Join::NameTaken { instance_id } => Err(name_taken(&local.name, &instance_id)),
        Join::HeadMoved { .. } => conflict("the cluster's head moved while its images were on their way"),
        Join::Busy { .. } => conflict("a commit is under way in the cluster"),
        Join::Full => Err(ApiError::new(ErrorCode::Unsupported, "the cluster has as many instances as it can have")),
    }
}

fn session_id(text: &str) -> Result<form_proto::AttemptId, ApiError> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id).map_err(|e| ApiError::internal("read a session's id", e))?;
    Ok(form_proto::AttemptId(id))
}

/// The host of the joined instance checks the request for itself: signature, what it is for, and the right.
async fn authorised(
    node: &Arc<Node>,
    local: &LocalInstance,
    request: &SignedRequest,
) -> Result<crate::auth::Authorised, ApiError> {
    let expected = Expected {
        installation: node.store.installation_id(),
        cluster: &local.cluster_id,
        instance: &local.instance_id,
        method: "POST",
        path: "/api/v1/instances",
    };
    let recovered = check_again(request, &expected, lifecycle::unix_ms())?;
    let cluster = node.store.cluster(&local.cluster_id).await?;
    let cluster = cluster.filter(|c| c.owner == local.owner).ok_or_else(|| {
        ApiError::new(ErrorCode::NotAllowed, format!("the owner of {} is not the one pinned here", local.name))
    })?;
    authorise(&recovered, Level::Manager, node.store.held_level(&cluster, recovered.signer()).await?)
}

/// The joined instance's node: makes the cluster's first commit.
pub(crate) async fn origin(node: &Arc<Node>, instance: &str, request: &SignedRequest) -> Result<Answer, ApiError> {
    let local = node.local(instance)?;
    let authorised = authorised(node, &local, request).await?;
    let mut hash = Sha256::new();
    hash.update(b"form-origin-v1\0");
    hash.update(authorised.request_hash());
    let began = core_impl::begin(
        node,
        &local,
        core_impl::Intent {
            signer: authorised.signer(),
            request: request.clone(),
            request_hash: hash.finalize().into(),
            targets: Vec::new(),
            parent: None,
            description: "first commit of the cluster, made as an instance joined".into(),
            timeout: COMMIT_TIMEOUT,
        },
    )
    .await?;
    Ok(Answer::Began { attempt: began.attempt_id })
}

/// The joined instance's node: gets the head's images ready for the node that joins.
pub(crate) async fn offer(
    node: &Arc<Node>,
    to: NodeId,
    instance: &str,
    request: &SignedRequest,
    held: &[String],
) -> Result<Answer, ApiError> {
    let local = node.local(instance)?;
    authorised(node, &local, request).await?;
    let head = node.store.cluster(&local.cluster_id).await?.and_then(|c| c.head);
    let record = match &head {
        Some(head) => node.store.commit_record(head).await?,
        None => None,
    };
    let record = record
        .ok_or_else(|| ApiError::new(ErrorCode::Conflict, "the cluster has no commit yet").remedy("try again"))?;
    let commit = Commit::decode(&record.bytes).map_err(|e| ApiError::internal("read the head", chain(&e)))?;
    offers::commit_hash(&record.commit_id)?;
    let mut session = [0; 16];
    getrandom::fill(&mut session).map_err(|e| ApiError::internal("draw a random id", e))?;
    let staging = node.layout.staging(form_proto::AttemptId(session), "seed");
    let encoded = encode_head(node, &local, &commit, &staging, held).await;
    let (encodings, indexes) = match encoded {
        Ok(encoded) => encoded,
        Err(error) => {
            coordinate::discard(node, form_proto::AttemptId(session), &staging);
            return Err(error);
        }
    };
    node.offer(session, Outgoing { allowed: vec![to], encodings, on_sent: Box::new(|_, _| {}) });
    Ok(Answer::Seeding(Box::new(Seeding {
        session: hex::encode(session),
        commit: hex::encode(&record.bytes),
        indexes,
        spec: local.spec,
    })))
}

/// Frames of the head's images, and the hashes of their indexes in the commit's order.
type EncodedHead = (HashMap<Hash, (PathBuf, FrameIndex)>, Vec<String>);

async fn encode_head(
    node: &Arc<Node>,
    local: &LocalInstance,
    commit: &Commit,
    staging: &Path,
    held: &[String],
) -> Result<EncodedHead, ApiError> {
    make_dir(staging).map_err(|e| ApiError::io("make", staging, &e))?;
    let tasks = commit.artifacts.iter().map(|artifact| {
        let (layout, cluster, staging) = (node.layout.clone(), local.cluster_id.clone(), staging.to_owned());
        let (name, root) = (artifact.name.clone(), artifact.root);
        let against_itself = held.contains(&root.to_string());
        blocking("encode the head", move || {
            let lost = || {
                ApiError::new(ErrorCode::Conflict, format!("the head's {name} is not in the base of this node yet"))
                    .remedy("try again")
            };
            let base = bases::open(&layout, &cluster, root).ok_or_else(lost)?;
            let against = against_itself.then_some((&base.image, &base.manifest));
            let frames = staging.join(format!("{name}.frames"));
            let encoded = encode::encode_one(&name, against, &base.image, &base.manifest, &frames, &mut |_, _| {})?;
            Ok((encoded.index, frames))
        })
    });
    let (mut encodings, mut indexes) = (HashMap::new(), Vec::new());
    for task in futures_util::future::join_all(tasks).await {
        let (index, path) = task?;
        let hash = index.hash();
        indexes.push(hash.to_string());
        encodings.insert(hash, (path, index));
    }
    Ok((encodings, indexes))
}

/// The node that joined has what it asked for.
pub(crate) fn done(node: &Arc<Node>, from: NodeId, session: &str) -> Result<Answer, ApiError> {
    let session = session_id(session)?;
    if node.outgoing(session.0).is_some_and(|outgoing| outgoing.allowed.contains(&from)) {
        node.withdraw(session.0);
        let staging = node.layout.staging_attempt(session);
        super::layout::remove_dir(&staging.join("seed")).map_err(|e| ApiError::io("remove", &staging, &e))?;
        // Not empty when both ends are this node: the other end removes it.
        let _ = std::fs::remove_dir(&staging);
    }
    Ok(Answer::Done)
}
