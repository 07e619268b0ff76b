//! How an instance joins a cluster: its node gets the images of the cluster's head, once and in full, as the base
//! of every later commit, and the instance starts from the head's disks.
//!
//! A cluster that has no commit yet gets its first one here, from the running instance that is joined: an attempt
//! with the source as its only participant.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use form_delta::{FrameIndex, Hash};
use form_transport::{ArtifactKind, Commit, NodeId};
use sha2::{Digest, Sha256};

use super::build::{Build, build, chain, delta, not_fetched};
use super::instance::{LocalInstance, file_name};
use super::layout::{make_dir, remove_dir, sync_dir, sync_file};
use super::lifecycle::{self, name_taken};
use super::limits::{COMMIT_TIMEOUT, JOIN_POLL, JOIN_REQUEST_LIFE, JOIN_WAIT, SEEDING_IDLE};
use super::node::Outgoing;
use super::peer::{Answer, Question, Seeding};
use super::serve::ask;
use super::{Node, bases, blocking, core_impl, encode, offer as offers};
use crate::auth::{Expected, Level, SignedRequest, authorise, check_again};
use crate::error::{ApiError, ErrorCode};
use crate::spec::VmmSpec;
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
    let joined = loop {
        match try_join(node, request, name, like).await {
            Err(error)
                if error.code == ErrorCode::Conflict
                    && tokio::time::Instant::now() < deadline
                    && node.store.find_instance(name).await?.is_none() =>
            {
                tracing::info!(%error, "joining again");
                tokio::time::sleep(JOIN_POLL).await;
            }
            done => break done,
        }
    };
    if let Err(error) = tidy_base(node, &like.cluster_id).await {
        tracing::warn!(%error, cause = error.cause, "bases may be left over; the next commit removes them");
    }
    joined
}

/// What was put into the base beside what is there was put there for an instance that had not joined yet. Now it has,
/// or it never will.
async fn tidy_base(node: &Arc<Node>, cluster: &str) -> Result<(), ApiError> {
    let _alone = node.base_lock.lock().await;
    if !node.db.instances()?.iter().any(|local| local.cluster_id == cluster) {
        return lifecycle::remove_bases(node, cluster);
    }
    let head = node.store.cluster(cluster).await?.and_then(|c| c.head);
    // As long as the lock is held, nobody on this node gets from a newer head to its base. A head whose images are not
    // here yet leaves the base to whoever brings them.
    let mut roots: Vec<_> = super::capture::parent_roots(node, head.as_deref()).await?.0.into_values().collect();
    if roots.iter().all(|root| node.layout.base_image(cluster, *root).exists()) {
        roots.extend(bases::of_others(node, cluster, "").await?);
        bases::keep_only(&node.layout, cluster, roots)?;
    }
    Ok(())
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
        seeding.spec.clone().for_sibling(),
    );
    // Ours to name: what a peer names could be anything that is being staged here.
    let own = form_proto::AttemptId(random_session()?);
    let bootable = local.spec.validate().and_then(|()| local.spec.check_boot_files(&node.private_dirs()));
    let received = match bootable {
        Ok(()) => receive(node, &host, &head, &seeding, &local, own).await,
        Err(error) => Err(error),
    };
    let told = ask(node, &host, &Question::SeedDone { session: seeding.session.clone() }).await;
    if let Err(error) = told {
        tracing::debug!(%error, "the end of a seeding was not told");
    }
    let staging = node.layout.staging_attempt(own);
    remove_dir(&staging).map_err(|e| ApiError::io("remove", &staging, &e))?;
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
    own: form_proto::AttemptId,
) -> Result<u64, ApiError> {
    let corrupt = |cause: String| ApiError::new(ErrorCode::Aborted, "the head's images can't be used").cause(cause);
    let commit = hex::decode(&seeding.commit).map_err(|e| corrupt(e.to_string()))?;
    let commit = Commit::decode(&commit).map_err(|e| corrupt(chain(&e)))?;
    if hex::encode(commit.id()) != head || commit.cluster != local.cluster_id {
        return Err(corrupt("they are of another commit than the head".into()));
    }
    describes(local, &commit).map_err(corrupt)?;
    if seeding.indexes.len() != commit.artifacts.len() {
        return Err(corrupt("not every image has its frames".into()));
    }
    let session = session_id(&seeding.session)?;
    let staging = node.layout.staging(own, &local.instance_id);
    make_dir(&staging).map_err(|e| ApiError::io("make", &staging, &e))?;
    let mut builds = Vec::new();
    for (artifact, index) in commit.artifacts.iter().zip(&seeding.indexes) {
        let hash = index.parse().map_err(|e| corrupt(format!("{index}: {e}")))?;
        let index = node.transport()?.fetch_index(host, session.0, hash).await;
        let index = index.map_err(|error| not_fetched(&artifact.name, error))?;
        let one = Build {
            cluster: local.cluster_id.clone(),
            instance: local.instance_id.clone(),
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
    let (layout, cluster, local) = (node.layout.clone(), local.cluster_id.clone(), local.clone());
    let _alone = node.base_lock.lock().await;
    blocking("put the head's images in place", move || {
        let artifacts = commit.artifacts.iter().map(|a| (a.name.as_str(), a.root));
        bases::install(&layout, &local.cluster_id, &staging, artifacts)?;
        let live = layout.live(&local.instance_id, &local.live);
        make_dir(&live).map_err(|e| ApiError::io("make", &live, &e))?;
        for image in commit.artifacts.iter().filter(|a| local.starts_from(a.kind)) {
            let base = layout.base_image(&local.cluster_id, image.root);
            let to = live.join(file_name(&image.name));
            form_delta::clone_image(&base, &to).map_err(|e| delta(&image.name, e))?;
            sync_file(&to).map_err(|e| ApiError::io("sync", &to, &e))?;
        }
        sync_dir(&live).map_err(|e| ApiError::io("sync", &live, &e))
    })
    .await?;
    super::source::list_blocks(node, &cluster);
    Ok(received)
}

/// The machine has the artifacts of the commit, and no others.
fn describes(local: &LocalInstance, commit: &Commit) -> Result<(), String> {
    let own = local.artifacts();
    if !commit.artifacts.iter().map(|a| (&a.name, a.kind)).eq(own.iter().map(|(name, kind)| (name, *kind))) {
        return Err("the spec that came with them is of a machine with other images".into());
    }
    let memory = commit.artifacts.iter().find(|a| a.kind == ArtifactKind::Memory);
    match (&local.spec.vmm, memory) {
        (VmmSpec::Qemu(qemu), Some(memory)) if memory.image_len_bytes != qemu.memory_bytes => {
            Err("the spec that came with them has another memory".into())
        }
        _ => Ok(()),
    }
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

fn random_session() -> Result<[u8; 16], ApiError> {
    let mut session = [0; 16];
    getrandom::fill(&mut session).map_err(|e| ApiError::internal("draw a random id", e))?;
    Ok(session)
}

/// The host of the joined instance checks the request for itself: signature, what it is for, and the right. Its age
/// counts to when its entry noted it: the cluster's first commit may take longer than a request stays fresh.
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
    let noted_ms = node.store.noted_ms(&hex::encode(request.request_hash())).await?.ok_or_else(|| {
        ApiError::new(ErrorCode::NotAllowed, format!("nobody has asked to join {}", local.name))
            .cause("no node has taken this request")
    })?;
    if lifecycle::unix_ms().saturating_sub(noted_ms) > u64::try_from(JOIN_REQUEST_LIFE.as_millis()).unwrap_or(u64::MAX)
    {
        return Err(ApiError::new(ErrorCode::StaleRequest, format!("joining {} takes too long", local.name))
            .cause(format!("the request is more than {} s old", JOIN_REQUEST_LIFE.as_secs()))
            .remedy("try again"));
    }
    let recovered = check_again(request, &expected, noted_ms)?;
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
            body: Vec::new(),
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
    let session = random_session()?;
    let files = Leftover(node.layout.staging_attempt(form_proto::AttemptId(session)));
    let (encodings, indexes) = encode_head(node, &local, &commit, &files.0.join("seed"), held).await?;
    let sent = Arc::new(AtomicU64::new(0));
    let on_sent = {
        let sent = Arc::clone(&sent);
        Box::new(move |_, bytes| {
            sent.fetch_add(bytes, Ordering::Relaxed);
        })
    };
    node.offer(session, Outgoing { allowed: vec![to], encodings, on_sent, files: Some(files) });
    // Whoever asked may never say that it is done.
    tokio::spawn({
        let node = Arc::downgrade(node);
        async move {
            idle(&sent, SEEDING_IDLE).await;
            if let Some(node) = node.upgrade() {
                node.withdraw(session);
            }
        }
    });
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
            let frames = staging.join(format!("{name}.frames"));
            let new = encode::New { name: &name, image: &base.image, manifest: &base.manifest, changed: &[] };
            let against = if against_itself { std::slice::from_ref(&base) } else { &[] };
            let encoded = encode::encode_one(&new, against, &frames, &mut |_, _| {})?;
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
    }
    Ok(Answer::Done)
}

/// A directory that goes when nobody needs it any more: with the session that serves it, or with the work that fills it.
pub(crate) struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Err(error) = remove_dir(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "left over in staging");
        }
    }
}

/// Until nothing was sent for that long.
async fn idle(sent: &AtomicU64, during: Duration) {
    let mut before = None;
    loop {
        let now = Some(sent.load(Ordering::Relaxed));
        if std::mem::replace(&mut before, now) == now {
            return;
        }
        tokio::time::sleep(during).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_still_sent_is_not_idle() {
        let sent = AtomicU64::new(0);
        let sending = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
        };
        tokio::join!(sending, idle(&sent, Duration::from_millis(200)));
        assert_eq!(sent.load(Ordering::Relaxed), 20);
    }

    #[test]
    fn a_leftover_goes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("left");
        make_dir(&path.join("over")).expect("make");
        drop(Leftover(path.clone()));
        assert!(!path.exists());
        drop(Leftover(path));
    }
}
