//! The offer: what a source tells a target about a commit, and what a target checks before it believes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use form_delta::{FrameIndex, Hash};
use form_proto::{Member, Work};
use form_transport::{Artifact, ArtifactKind, Commit, FrameIndexBytes, NodeId, Offer};
use sha2::{Digest, Sha256};

use super::attempt::Attempt;
use super::build::chain;
use super::encode::base_for;
use super::instance::{LocalInstance, file_name};
use super::limits::{DEVICE_STATE_BYTES_MAX, frames_len_bytes_max};
use super::preflight::{facts_text, vmm_view};
use super::{Node, lifecycle};
use crate::api::types::CommitVmRequest;
use crate::auth::{Expected, Level, Recovered, SignedRequest, authorise, check_again};
use crate::error::{ApiError, ErrorCode};
use crate::store::normal_id;

/// What is signed for a commit: this method on this path.
const COMMIT_ROUTE: (&str, &str) = ("POST", "/api/v1/commit");

/// The encoded offer for one participant; the source's own has no frames.
pub(crate) fn make(node: &Node, attempt: &Attempt, member: Member) -> Result<Vec<u8>, ApiError> {
    let failed = |e: &dyn std::error::Error| ApiError::internal("make the offer", chain(e));
    let capture = attempt.capture.get().ok_or_else(|| ApiError::internal("make the offer", "nothing is captured"))?;
    let index = |artifact: &Artifact| {
        if member == Member::SOURCE {
            return FrameIndexBytes(Vec::new());
        }
        let with_base = capture.encodings.iter().find(|((name, base), _)| {
            let held = base.map(Hash::from_bytes);
            *name == artifact.name && held.is_some() && base_for(attempt, member, held) == held
        });
        let full = || capture.encodings.get_key_value(&(artifact.name.clone(), None));
        let encoded = with_base.or_else(full).map(|(_, (_, encoded))| encoded.index.encode());
        FrameIndexBytes(encoded.unwrap_or_default())
    };
    let mut offer = Offer {
        commit: capture.commit.clone(),
        node_signature: [0; 64],
        request_signature: attempt.request.signature,
        request_recovery_id: attempt.request.recovery_id,
        request_body: attempt.body.clone(),
        indexes: capture.commit.artifacts.iter().map(index).collect(),
    };
    offer.sign(&node.key, &attempt.id.0, attempt.record.epoch);
    offer.encode().map_err(|e| failed(&e))
}

/// An offer that stood up to every check of this target.
pub(crate) struct Checked {
    pub(crate) commit: Commit,
    /// In the commit's order.
    pub(crate) indexes: Vec<FrameIndex>,
    pub(crate) coordinator: NodeId,
}

impl Checked {
    pub(crate) fn roots(&self) -> BTreeMap<String, String> {
        self.commit.artifacts.iter().map(|a| (a.name.clone(), a.root.to_string())).collect()
    }
}

/// The target's own checks, in the order of the protocol: who asked and for what, whether that account may, whether
/// the request began this attempt, and whether the offering node hosts the source and vouches for the content.
pub(crate) async fn check(
    node: &Arc<Node>,
    local: &LocalInstance,
    work: &Work,
    from: NodeId,
    payload: &[u8],
) -> Result<Checked, ApiError> {
    let refused =
        |cause: String| ApiError::new(ErrorCode::NotAllowed, format!("{} refuses the commit", local.name)).cause(cause);
    let offer = Offer::decode(payload).map_err(|e| refused(chain(&e)))?;
    let commit = offer.commit;
    let record = node.store.attempt(&hex::encode(work.attempt.0)).await?;
    let record = record.ok_or_else(|| refused("no such attempt has begun".into()))?;
    let request = SignedRequest {
        message: commit.request_message.clone(),
        signature: offer.request_signature,
        recovery_id: offer.request_recovery_id,
    };
    let (method, path) = COMMIT_ROUTE;
    let expected = Expected {
        installation: node.store.installation_id(),
        cluster: &local.cluster_id,
        instance: &record.source_instance,
        method,
        path,
    };
    let recovered = check_again(&request, &expected, record.began_ms)?;
    let cluster = node.store.cluster(&local.cluster_id).await?;
    let cluster = cluster.ok_or_else(|| refused("the cluster is gone".into()))?;
    if cluster.owner != local.owner {
        return Err(refused(format!("the store names {} as owner; {} was pinned here", cluster.owner, local.owner)));
    }
    authorise(&recovered, Level::Manager, node.store.held_level(&cluster, recovered.signer()).await?)?;
    wanted(&recovered, &offer.request_body, local, &commit).map_err(refused)?;
    let source = node.store.instance(&record.source_instance).await?;
    let own = record.participants.iter().find(|p| p.instance_id == local.instance_id);
    let generation = node.store.instance(&local.instance_id).await?.map(|i| i.lifecycle_generation);
    let parent = record.parent.as_deref().map(commit_hash).transpose()?;
    let vmm = facts_text(&vmm_view(&node.vmms.of(local).host().await.map_err(lifecycle::vmm_error)?))?;
    for (holds, what) in [
        (hex::encode(recovered.request_hash()) == record.request_hash, "another request began this attempt"),
        (record.epoch == work.epoch.0, "the attempt has another epoch"),
        (record.coordinator == from.to_string(), "it does not come from the attempt's coordinator"),
        (source.is_some_and(|s| s.node_id == from.to_string()), "the node that offers it does not host the source"),
        (own.is_some(), "this instance takes no part in it"),
        (own.map(|p| p.lifecycle_generation) == generation, "it was stopped or started since the attempt began"),
        (commit.id() == work.commit.0, "the commit is not the one it is announced as"),
        (commit.cluster == local.cluster_id, "it is of another cluster"),
        (commit.source_instance == record.source_instance, "it was captured from another instance"),
        (commit.parent == parent, "its parent is not the attempt's"),
        (commit.author == *recovered.signer().as_bytes(), "its author did not sign the request"),
        (commit.vmm == vmm, "it was captured by another VMM, version or CPU model than this node has"),
    ] {
        if !holds {
            return Err(refused(what.into()));
        }
    }
    let signed = Offer { commit, ..offer };
    signed.verify(from, &work.attempt.0, work.epoch.0).map_err(|e| refused(chain(&e)))?;
    let commit = signed.commit;
    fits_machine(node, local, &commit).map_err(refused)?;
    let indexes = signed
        .indexes
        .iter()
        .zip(&commit.artifacts)
        .map(|(bytes, artifact)| {
            let index = FrameIndex::decode(&bytes.0).map_err(|e| refused(chain(&e)))?;
            if index.new_root != artifact.root || index.image_len_bytes != artifact.image_len_bytes {
                return Err(refused(format!("the frames of {} are of another image", artifact.name)));
            }
            if index.frames_len_bytes() > frames_len_bytes_max(artifact.image_len_bytes) {
                return Err(refused(format!("the frames of {} are longer than it can need", artifact.name)));
            }
            Ok(index)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Checked { commit, indexes, coordinator: from })
}

/// The request's body is the one that was signed, and asks for this: for a commit with that description, of this
/// instance among the targets, if it names any.
fn wanted(request: &Recovered, body: &[u8], local: &LocalInstance, commit: &Commit) -> Result<(), String> {
    if <[u8; 32]>::from(Sha256::digest(body)) != request.message().body_sha256 {
        return Err("it comes with another body than the one that was signed".into());
    }
    let asked: CommitVmRequest = serde_json::from_slice(body).map_err(|e| format!("the request can't be read: {e}"))?;
    let id = Some(&local.instance_id);
    if asked.targets.is_some_and(|targets| !targets.iter().any(|t| normal_id(t).as_ref() == id)) {
        return Err("the request names other targets".into());
    }
    if asked.description.unwrap_or_default() != commit.description {
        return Err("its description is not the request's".into());
    }
    if asked.dry_run == Some(true) {
        return Err("the request asks for nothing to be changed".into());
    }
    Ok(())
}

/// The artifacts are those of this machine, and of its sizes: nothing a peer says makes us allocate more.
fn fits_machine(node: &Node, local: &LocalInstance, commit: &Commit) -> Result<(), String> {
    let live = node.layout.live(&local.instance_id, &local.live);
    let len_bytes = |name: &str| std::fs::metadata(live.join(file_name(name))).ok().map(|image| image.len());
    let own = local.artifacts();
    for artifact in &commit.artifacts {
        let of_its_size = match artifact.kind {
            ArtifactKind::DeviceState => artifact.image_len_bytes <= DEVICE_STATE_BYTES_MAX,
            ArtifactKind::Memory | ArtifactKind::Disk => len_bytes(&artifact.name) == Some(artifact.image_len_bytes),
        };
        if !of_its_size || !own.iter().any(|(name, kind)| *name == artifact.name && *kind == artifact.kind) {
            return Err(format!("this machine has no {} of {} bytes", artifact.name, artifact.image_len_bytes));
        }
    }
    if commit.artifacts.len() != own.len() {
        return Err("it does not hold all artifacts of this machine".into());
    }
    Ok(())
}

/// A commit's id from its hex form.
pub(crate) fn commit_hash(text: &str) -> Result<[u8; 32], ApiError> {
    let mut id = [0; 32];
    hex::decode_to_slice(text, &mut id).map_err(|e| ApiError::internal("read a commit's id", e))?;
    Ok(id)
}
