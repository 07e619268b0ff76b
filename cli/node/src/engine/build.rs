//! One image from its frames: fetched, checked on arrival, rebuilt, read again in full, durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use form_delta::{Engine, FrameIndex, Hash, Manifest, Spool};
use form_transport::{ErrorKind, PeerAddr};

use super::bases::{self, staged_manifest};
use super::incoming::fetch;
use super::instance::file_name;
use super::layout::{Layout, create_file, write_durably};
use super::{Node, standby};
use crate::error::{ApiError, ErrorCode};

/// What to build, and from whom its frames come.
pub(crate) struct Build {
    pub(crate) cluster: String,
    pub(crate) instance: String,
    /// Names the session at the source: an attempt, or a seeding.
    pub(crate) session: [u8; 16],
    pub(crate) from: PeerAddr,
    pub(crate) artifact: String,
    pub(crate) root: Hash,
    pub(crate) index: FrameIndex,
    pub(crate) staging: PathBuf,
}

/// How far a build is: phase, bytes done, bytes in all.
pub(crate) type Progress = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// Builds `<staging>/<artifact>.img` and its manifest beside it, both durable. Returns the bytes of frames received.
pub(crate) async fn build(node: &Arc<Node>, build: Build, progress: Progress) -> Result<u64, ApiError> {
    if build.index.new_root != build.root {
        return Err(corrupt(&build.artifact, "its frames are listed for another image than the commit names"));
    }
    let (frames, received) = fetch(node, &build, &progress).await?;
    let (layout, engine) = (node.layout.clone(), node.engine);
    super::blocking("rebuild an image", move || {
        let bases = build
            .index
            .base_roots
            .iter()
            .map(|root| {
                bases::open(&layout, &build.cluster, *root).ok_or_else(|| {
                    corrupt(&build.artifact, &format!("the base {root} is not here any more")).remedy("commit again")
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let spool = frames.get().ok_or_else(|| ApiError::internal("fetch frames", "nobody did"))?;
        let image = build.staging.join(file_name(&build.artifact));
        let built = rebuild(&layout, &build, spool, &bases, &image, engine, &progress);
        let manifest = built.map_err(|error| {
            let dropped = |base: &&bases::Base| bases::drop_damaged(&layout, &build.cluster, base);
            match bases.iter().find(dropped) {
                Some(base) => corrupt(&build.artifact, &format!("the base {} of this node is damaged", base.root))
                    .remedy("commit again: the base was dropped, and the image will be sent in full"),
                None => error,
            }
        })?;
        write_durably(&staged_manifest(&build.staging, &build.artifact), &manifest.encode())
            .map_err(|e| ApiError::io("write", &build.staging, &e))
    })
    .await?;
    Ok(received)
}

/// The error for whoever waits for an artifact that could not be fetched.
pub(crate) fn not_fetched(artifact: &str, error: form_transport::Error) -> ApiError {
    let message = format!("{artifact} did not arrive in full");
    match error.kind() {
        ErrorKind::Retryable => ApiError::new(ErrorCode::TargetUnavailable, message)
            .remedy("see that the source's node is up and reachable, then commit again"),
        _ => ApiError::new(ErrorCode::Aborted, message),
    }
    .cause(chain(&error))
}

fn rebuild(
    layout: &Layout,
    build: &Build,
    spool: &Spool,
    bases: &[bases::Base],
    image: &Path,
    engine: Engine,
    progress: &Progress,
) -> Result<Manifest, ApiError> {
    let fail = |e| delta(&build.artifact, e);
    let manifests: Vec<_> = bases.iter().map(|b| &b.manifest).collect();
    let plan = form_delta::plan(&build.index, spool, &manifests).map_err(fail)?;
    let (out, is_hashed) = match bases.first() {
        None => (create_file(image).map_err(|e| ApiError::io("make", image, &e))?, false),
        Some(base) => {
            let start = standby::start_from(layout, &build.instance, &build.artifact, base, image)?;
            (start.file, start.is_hashed)
        }
    };
    let mut on_bytes = |done, total| progress("apply", done, total);
    let images: Vec<_> = bases.iter().map(|b| &b.image).collect();
    // It ends with an fsync, which covers what the copy before it wrote as well.
    form_delta::apply(&plan, spool, &images, &out, engine, &mut on_bytes).map_err(fail)?;
    progress("verify", 0, build.index.image_len_bytes);
    match bases.first().filter(|_| is_hashed) {
        // Every byte of this very file was hashed when it became a standby, and it was not touched since.
        Some(base) => {
            let new = plan.manifest().changed_since(&base.manifest);
            form_delta::verify_chunks(&out, plan.manifest(), &new).map(drop)
        }
        None => form_delta::verify_image(&out, plan.manifest()),
    }
    .map_err(fail)?;
    progress("verify", build.index.image_len_bytes, build.index.image_len_bytes);
    Ok(plan.manifest().clone())
}

fn corrupt(artifact: &str, cause: &str) -> ApiError {
    ApiError::new(ErrorCode::Aborted, format!("{artifact} could not be rebuilt")).cause(cause)
}

/// An error of the delta engine while it worked on an artifact.
pub(crate) fn delta(artifact: &str, error: form_delta::Error) -> ApiError {
    let full = matches!(&error, form_delta::Error::Io { source, .. }
        if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded));
    let told = ApiError::new(
        if full { ErrorCode::TargetUnfit } else { ErrorCode::Aborted },
        format!("{artifact} could not be built"),
    )
    .cause(chain(&error));
    if full { told.remedy("free some space where the node's data directory is, then commit again") } else { told }
}

/// An error with all that stands behind it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
