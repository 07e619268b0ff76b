//! Frames on their way into a spool. A transfer that is cut goes on where it stopped: what arrived was verified and
//! spooled, and is not asked for again.

use std::{sync::Arc, time::Duration};

use form_delta::{FrameIndex, Hash, Spool};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::info;

use crate::{
    BulkRequest, Error, ErrorKind, FrameRange, PeerAddr, Result, Transport,
    limits::{FETCH_BACKOFF_FIRST, FETCH_BACKOFF_MAX, FETCH_RETRIES_MAX, FRAME_INDEX_BYTES_MAX},
    wire,
};

impl Transport {
    /// Fetches every frame that `spool` lacks, verifies each before it is spooled, and tells `progress` how many
    /// bytes each had. A lost connection is made again and the rest is asked for, for as long as that brings
    /// anything: [`FETCH_RETRIES_MAX`] tries in a row that bring nothing are the end.
    pub async fn fetch_frames(
        &self,
        from: &PeerAddr,
        session: [u8; 16],
        spool: &Arc<Spool>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let index = *spool.index().hash().as_bytes();
        let mut patience = Patience::default();
        loop {
            let ranges = FrameRange::of(spool.missing());
            if ranges.is_empty() {
                return Ok(());
            }
            let mut numbers = ranges.clone().into_iter().flat_map(FrameRange::numbers);
            let request = BulkRequest::Frames { session, index, ranges };
            let fetched = async {
                let mut items = self.fetch(from, request.encode()?).await?;
                while let Some(item) = items.next().await? {
                    let unasked = || Error::malformed("fetched frames", "more came than were asked for");
                    let (number, spool) = (numbers.next().ok_or_else(unasked)?, Arc::clone(spool));
                    // Hashing and writing take about as long as a packet's patience; the connection runs on meanwhile.
                    let kept = spawn_blocking(move || {
                        let len_bytes = item.len() as u64;
                        let frame = spool.index().verify(number, item)?;
                        spool.put(frame).map(|()| len_bytes)
                    });
                    progress(kept.await.map_err(|_| Error::Closed)?.map_err(Error::Frame)?);
                    patience = Patience::default();
                }
                match numbers.next() {
                    None => Ok(()),
                    Some(_) => Err(Error::malformed("fetched frames", "fewer came than were asked for")),
                }
            };
            if let Err(error) = fetched.await {
                patience.after(error).await?;
            }
        }
    }

    /// Fetches a frame index by its hash, which is checked before anything is decoded.
    pub async fn fetch_index(&self, from: &PeerAddr, session: [u8; 16], hash: Hash) -> Result<FrameIndex> {
        let request = BulkRequest::Index { session, index: *hash.as_bytes() }.encode()?;
        let mut patience = Patience::default();
        loop {
            let fetched = async {
                let mut items = self.fetch(from, request.clone()).await?;
                let mut bytes = Vec::new();
                while let Some(item) = items.next().await? {
                    wire::block_len("frame index", bytes.len() + item.len(), FRAME_INDEX_BYTES_MAX)?;
                    bytes.extend(item);
                }
                Ok(bytes)
            };
            match fetched.await {
                Ok(bytes) if Hash::of(&bytes) == hash => return FrameIndex::decode(&bytes).map_err(Error::Frame),
                Ok(_) => return Err(Error::malformed("frame index", "its hash is not the one it is named by")),
                Err(error) => patience.after(error).await?,
            }
        }
    }
}

/// How often a fetch has failed since it last brought something.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    /// Waits before the next try, or gives up with the error.
    async fn after(&mut self, error: Error) -> Result<()> {
        let Some(pause) = self.pause(&error) else { return Err(error) };
        info!(%error, tries = self.0, "a fetch was cut; it goes on where it stopped");
        sleep(pause).await;
        Ok(())
    }

    /// None when another try can't mend it, or after too many.
    fn pause(&mut self, error: &Error) -> Option<Duration> {
        if error.kind() != ErrorKind::Retryable || self.0 == FETCH_RETRIES_MAX {
            return None;
        }
        let pause = FETCH_BACKOFF_FIRST.saturating_mul(1 << self.0).min(FETCH_BACKOFF_MAX);
        self.0 += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_bounded_and_further_and_further_apart() {
        let mut patience = Patience::default();
        let pauses: Vec<_> = std::iter::from_fn(|| patience.pause(&Error::SinkClosed)).collect();
        assert_eq!(pauses.len(), FETCH_RETRIES_MAX as usize);
        assert!(pauses.is_sorted() && pauses[0] == FETCH_BACKOFF_FIRST && pauses.last() == Some(&FETCH_BACKOFF_MAX));
        assert_eq!(Patience::default().pause(&Error::Closed), None, "nothing to be mended");
    }
}
