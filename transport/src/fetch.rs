//! Bulk fetches: items streamed back, bounded in bytes at both ends.
//!
//! A producer that runs ahead of a slow consumer fills, in this order: the consumer's receive window,
//! its own send window, and [`FETCH_IN_FLIGHT_BYTES_MAX`] of items that wait here. Then it waits.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tokio::{
    io::AsyncRead,
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
    },
};

use crate::{
    Error, NodeId, Result,
    limits::{FETCH_FAILURE_BYTES_MAX, FETCH_IN_FLIGHT_BYTES_MAX, FETCH_ITEM_BYTES_MAX},
    link,
    wire::{self, ItemTag},
};

const WHAT: &str = "fetched item";
// An item has to fit in the budget, or it would wait for ever.
const _: () = assert!(FETCH_ITEM_BYTES_MAX <= FETCH_IN_FLIGHT_BYTES_MAX);

/// A connection's budget of item bytes that are read ahead.
pub(crate) fn budget() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(FETCH_IN_FLIGHT_BYTES_MAX as usize))
}

/// Waits until an item of this length may be in memory.
async fn admit(budget: &Arc<Semaphore>, len_bytes: u32) -> Result<OwnedSemaphorePermit> {
    let permit = Arc::clone(budget).acquire_many_owned(len_bytes).await;
    permit.map_err(|_| Error::Closed)
}

/// Where a [`Service`](crate::Service) puts the items of a fetch. Clones feed the same fetch.
#[derive(Clone, Debug)]
pub struct ItemSink {
    budget: Arc<Semaphore>,
    items: UnboundedSender<(Bytes, OwnedSemaphorePermit)>,
}

impl ItemSink {
    /// Queues one item. Waits while the connection's fetches hold their bytes' limit already, so the caller
    /// should have no more than the item at hand in memory.
    ///
    /// Fails when the item is over [`FETCH_ITEM_BYTES_MAX`], or when nobody will receive it any more.
    pub async fn send(&self, item: impl Into<Bytes>) -> Result<()> {
        let item = item.into();
        let len_bytes = wire::block_len(WHAT, item.len(), FETCH_ITEM_BYTES_MAX)?;
        // The queue is unbounded in number and bounded in bytes, by this permit, which travels with the item.
        let permit = tokio::select! {
            permit = admit(&self.budget, len_bytes) => permit?,
            () = self.items.closed() => return Err(Error::SinkClosed),
        };
        let sent = self.items.send((item, permit));
        sent.map_err(|_| Error::SinkClosed)
    }
}

/// The other end of an [`ItemSink`].
pub(crate) struct ItemQueue(UnboundedReceiver<(Bytes, OwnedSemaphorePermit)>);

pub(crate) fn queue(budget: &Arc<Semaphore>) -> (ItemSink, ItemQueue) {
    let (items, receiver) = mpsc::unbounded_channel();
    let budget = Arc::clone(budget);
    (ItemSink { budget, items }, ItemQueue(receiver))
}

impl ItemQueue {
    /// Writes items until all sinks are gone. Returns how many there were.
    pub(crate) async fn drain(mut self, send: &mut SendStream) -> Result<u64> {
        let mut count = 0;
        while let Some((item, permit)) = self.0.recv().await {
            let head = wire::item_head(ItemTag::Item, item.len() as u32);
            let mut parts = [Bytes::copy_from_slice(&head), item];
            let written = send.write_all_chunks(&mut parts).await;
            written.map_err(|e| wire::stream(WHAT)(e.into()))?;
            drop(permit);
            count += 1;
        }
        Ok(count)
    }
}

/// Writes how the fetch ended. Without this entry the peer knows that it did not end well.
pub(crate) async fn write_end(send: &mut SendStream, count: u64, result: Result<(), String>) -> Result<()> {
    let (tag, body) = match result {
        Ok(()) => (ItemTag::End, count.to_le_bytes().to_vec()),
        Err(reason) => (ItemTag::Failed, shorten(reason).into_bytes()),
    };
    let head = wire::item_head(tag, body.len() as u32);
    let written = send.write_all(&[head.as_slice(), &body].concat()).await;
    written.map_err(|e| wire::stream("end of a fetch")(e.into()))
}

fn shorten(mut reason: String) -> String {
    let mut end = reason.len().min(FETCH_FAILURE_BYTES_MAX as usize);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

/// The items of a fetch, as they arrive. Dropped before the end, it stops the peer.
#[derive(Debug)]
pub struct Items {
    peer: NodeId,
    recv: RecvStream,
    count: u64,
    /// Bounds how many there are at a time.
    _turn: OwnedSemaphorePermit,
}

impl Items {
    pub(crate) fn new(peer: NodeId, recv: RecvStream, turn: OwnedSemaphorePermit) -> Self {
        Self { peer, recv, count: 0, _turn: turn }
    }

    /// The next item; `None` when the peer has said that this was all.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let entry = receive(&mut self.recv, self.count).await;
        match entry.map_err(|error| link::explain("fetch", self.peer, error))? {
            Entry::Item(item) => {
                self.count += 1;
                Ok(Some(item))
            }
            Entry::Complete => Ok(None),
            Entry::Failed(message) => Err(Error::Remote { peer: self.peer, message }),
        }
    }
}

/// One entry of a fetch's answer.
enum Entry {
    Item(Vec<u8>),
    Complete,
    Failed(String),
}

/// Reads the next entry after `count` items.
async fn receive(recv: &mut (impl AsyncRead + Unpin), count: u64) -> Result<Entry> {
    let (tag, len_bytes) = wire::read_item_head(recv).await?;
    match tag {
        ItemTag::Item => {
            wire::check(WHAT, len_bytes, FETCH_ITEM_BYTES_MAX)?;
            Ok(Entry::Item(wire::read_at_once(recv, WHAT, len_bytes).await?))
        }
        ItemTag::End => {
            wire::check("end of a fetch", len_bytes, 8)?;
            let body = wire::read_body(recv, "end of a fetch", len_bytes).await?;
            if body != count.to_le_bytes() {
                let reason = format!("its item count is not the {count} that arrived");
                return Err(Error::malformed("end of a fetch", reason));
            }
            Ok(Entry::Complete)
        }
        ItemTag::Failed => {
            wire::check("reason of a failed fetch", len_bytes, FETCH_FAILURE_BYTES_MAX)?;
            let body = wire::read_body(recv, "reason of a failed fetch", len_bytes).await?;
            Ok(Entry::Failed(String::from_utf8_lossy(&body).into_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tag: ItemTag, len_bytes: u32, body: &[u8]) -> Vec<u8> {
        [wire::item_head(tag, len_bytes).as_slice(), body].concat()
    }

    /// What a consumer got before `answer` ended, and how it ended.
    async fn received(mut answer: &[u8]) -> (Vec<Vec<u8>>, Result<Entry>) {
        let mut items = Vec::new();
        loop {
            match receive(&mut answer, items.len() as u64).await {
                Ok(Entry::Item(item)) => items.push(item),
                ended => return (items, ended),
            }
        }
    }

    #[tokio::test]
    async fn only_the_end_entry_ends_a_fetch() {
        let item = entry(ItemTag::Item, 3, b"abc");
        let end = entry(ItemTag::End, 8, &1_u64.to_le_bytes());
        let whole = [item, end].concat();
        for cut in 0..whole.len() {
            let (_, ended) = received(&whole[..cut]).await;
            assert!(matches!(ended, Err(Error::Truncated { .. })), "cut at {cut}");
        }
        let (items, ended) = received(&whole).await;
        assert!(matches!(ended, Ok(Entry::Complete)));
        assert_eq!(items, [b"abc"]);
    }

    #[tokio::test]
    async fn a_fetch_that_lost_an_item_is_not_complete() {
        let (_, ended) = received(&entry(ItemTag::End, 8, &1_u64.to_le_bytes())).await;
        assert!(matches!(ended, Err(Error::Malformed { .. })));
        let (_, ended) = received(&entry(ItemTag::End, 0, b"")).await;
        assert!(matches!(ended, Err(Error::Malformed { .. })));
    }

    #[tokio::test]
    async fn hostile_lengths_are_refused_before_any_byte_is_read() {
        let over = [
            (ItemTag::Item, FETCH_ITEM_BYTES_MAX + 1),
            (ItemTag::Item, u32::MAX),
            (ItemTag::End, 9),
            (ItemTag::Failed, FETCH_FAILURE_BYTES_MAX + 1),
        ];
        for (tag, len_bytes) in over {
            let (items, ended) = received(&entry(tag, len_bytes, b"")).await;
            // Had the length been believed, this would be `Truncated`.
            assert!(matches!(ended, Err(Error::TooLarge { .. })), "{tag:?} of {len_bytes}");
            assert!(items.is_empty());
        }
        let (_, ended) = received(&[9, 0, 0, 0, 0]).await;
        assert!(matches!(ended, Err(Error::Malformed { .. })));
    }

    #[tokio::test]
    async fn a_sink_waits_for_its_budget_and_learns_of_the_end() {
        let budget = budget();
        let (sink, mut queue) = queue(&budget);
        let item = || vec![0; FETCH_ITEM_BYTES_MAX as usize];
        let fit = FETCH_IN_FLIGHT_BYTES_MAX / FETCH_ITEM_BYTES_MAX;
        for _ in 0..fit {
            sink.send(item()).await.unwrap();
        }
        let mut next = Box::pin(sink.send(item()));
        assert!(poll_once(&mut next).await.is_none(), "one more than fits was accepted");
        drop(queue.0.recv().await);
        next.await.unwrap();
        let mut last = Box::pin(sink.send(item()));
        assert!(poll_once(&mut last).await.is_none());
        drop(queue);
        assert!(matches!(last.await, Err(Error::SinkClosed)));
        let over = sink.send(vec![0; FETCH_ITEM_BYTES_MAX as usize + 1]).await;
        assert!(matches!(over, Err(Error::TooLarge { .. })));
    }

    /// Polls once.
    async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(FETCH_FAILURE_BYTES_MAX as usize);
        let cut = shorten(reason);
        assert_eq!(cut.len(), FETCH_FAILURE_BYTES_MAX as usize);
        assert!(cut.chars().all(|c| c == 'ä'));
    }
}
