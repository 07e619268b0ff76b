//! Frames on their way in: instances are participants each for itself, but what a node needs twice travels once.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use form_delta::{Hash, Spool};
use tokio::sync::OnceCell;

use super::Node;
use super::build::{Build, Progress, delta, not_fetched};
use crate::error::ApiError;

/// The transfers that somebody waits for or builds from.
#[derive(Default)]
pub(crate) struct Incoming(Mutex<HashMap<Key, Weak<Transfer>>>);

/// A session, and the hash of the index of the frames that are fetched in it.
type Key = ([u8; 16], Hash);

/// Filled by the first who comes; if that one fails or is given up, by the next.
pub(crate) type Transfer = OnceCell<Spool>;

impl Incoming {
    /// The transfer of these frames in this session. It ends with the last who holds it.
    fn join(&self, session: [u8; 16], index: Hash) -> Arc<Transfer> {
        let mut transfers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        transfers.retain(|_, transfer| transfer.strong_count() > 0);
        if let Some(transfer) = transfers.get(&(session, index)).and_then(Weak::upgrade) {
            return transfer;
        }
        let transfer = Arc::new(Transfer::new());
        transfers.insert((session, index), Arc::downgrade(&transfer));
        transfer
    }
}

/// Fetches the frames of a build, unless another instance of this node does or did in the same session. Gives how many bytes came for this one.
pub(crate) async fn fetch(
    node: &Arc<Node>,
    build: &Build,
    progress: &Progress,
) -> Result<(Arc<Transfer>, u64), ApiError> {
    let total = build.index.frames_len_bytes();
    let transfer = node.incoming.join(build.session, build.index.hash());
    let received = AtomicU64::new(0);
    let on_frame = |len: u64| progress("receive", received.fetch_add(len, Ordering::Relaxed) + len, total);
    let fill = || async {
        let spool = unnamed(&build.staging.join(format!("{}.frames", build.artifact)), build)?;
        let fetched = node.transport()?.fetch_frames(&build.from, build.session, &spool, &on_frame).await;
        fetched.map_err(|error| not_fetched(&build.artifact, error))?;
        Arc::into_inner(spool).ok_or_else(|| ApiError::internal("fetch frames", "they are still being written"))
    };
    transfer.get_or_try_init(fill).await?;
    progress("receive", total, total);
    Ok((transfer, received.into_inner()))
}

/// A spool in a file that has no name any more: it is gone with the last who holds it, and with the process.
fn unnamed(path: &Path, build: &Build) -> Result<Arc<Spool>, ApiError> {
    let spool = Spool::create(path, build.index.clone()).map_err(|e| delta(&build.artifact, e))?;
    std::fs::remove_file(path).map_err(|e| ApiError::io("remove", path, &e))?;
    Ok(Arc::new(spool))
}
