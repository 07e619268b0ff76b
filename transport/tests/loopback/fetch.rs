use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use form_transport::{
    Error, ErrorKind,
    limits::{
        FETCH_IN_FLIGHT_BYTES_MAX, FETCH_ITEM_BYTES_MAX, FETCHES_MAX, RECEIVE_WINDOW_BYTES_MAX,
        RECEIVE_WINDOW_BYTES_MIN, SEND_WINDOW_BYTES,
    },
};
use tokio::{task::JoinSet, time::sleep};

use crate::node::{Node, all, stop, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn items_arrive_whole_and_in_order() {
    let (a, b) = Node::pair();
    let got = all(a.transport.fetch(&b.peer(), wanted(200, 100_000)).await).await.unwrap();
    assert_eq!(got.len(), 200);
    assert!(got.iter().enumerate().all(|(n, item)| *item == vec![n as u8; 100_000]));
    assert_eq!(all(a.transport.fetch(&b.peer(), wanted(0, 0)).await).await.unwrap().len(), 0);
    let largest = all(a.transport.fetch(&b.peer(), wanted(1, FETCH_ITEM_BYTES_MAX)).await).await.unwrap();
    assert_eq!(largest[0].len(), FETCH_ITEM_BYTES_MAX as usize);
    stop([a, b]).await;
}

/// Promise 9: what is in memory on the way does not grow with what is fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_consumer_stops_its_producer() {
    const ITEM_BYTES: u32 = 1 << 20;
    const COUNT: u32 = 64;
    // Everything that may hold bytes between the producer's hands and the consumer's.
    let bound = u64::from(FETCH_IN_FLIGHT_BYTES_MAX + SEND_WINDOW_BYTES + RECEIVE_WINDOW_BYTES_MAX + 2 * ITEM_BYTES);
    let total = u64::from(COUNT * ITEM_BYTES);
    assert!(bound < total, "everything fits in flight, so this test shows nothing");

    let (a, b) = Node::pair();
    let (mut consumed, mut peak) = (0_u64, 0_u64);
    let mut items = a.transport.fetch(&b.peer(), wanted(COUNT, ITEM_BYTES)).await.unwrap();
    while let Some(item) = items.next().await.unwrap() {
        // The first and the middle item are held until the producer has stood still for a while.
        if consumed == 0 || consumed == total / 2 {
            let mut before = None;
            loop {
                let served = b.log.served_bytes.load(SeqCst);
                if before == Some(served)
                    && (served > consumed + u64::from(RECEIVE_WINDOW_BYTES_MIN) || served == total)
                {
                    break;
                }
                before = Some(served);
                sleep(Duration::from_millis(250)).await;
            }
        }
        peak = peak.max(b.log.served_bytes.load(SeqCst) - consumed);
        consumed += item.len() as u64;
    }
    assert_eq!(consumed, total);
    assert_eq!(b.log.served_bytes.load(SeqCst), total);
    assert!(peak <= bound, "{peak} bytes were in flight, {bound} are allowed");
    stop([a, b]).await;
}

/// Many more than are under way at a time, of the largest items: none starves the others.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_fetches_all_arrive() {
    const FETCHES: usize = 3 * FETCHES_MAX;
    let (a, b) = Node::pair();
    let (a, peer) = (Arc::new(a), b.peer());
    let mut fetching = JoinSet::new();
    for _ in 0..FETCHES {
        let a = Arc::clone(&a);
        fetching.spawn(async move {
            let items = all(a.transport.fetch(&peer, wanted(3, FETCH_ITEM_BYTES_MAX)).await).await.unwrap();
            assert_eq!(items.len(), 3);
        });
    }
    assert_eq!(fetching.join_all().await.len(), FETCHES);
    assert_eq!(b.log.trust_asked.load(SeqCst), 1);
    stop([Arc::into_inner(a).unwrap(), b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_a_failure_arrives() {
    let (a, b) = Node::pair();
    let error = all(a.transport.fetch(&b.peer(), b"fail".to_vec()).await).await.unwrap_err();
    assert!(matches!(&error, Error::Remote { message, .. } if message == "the disk is on fire"), "{error:?}");
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_dies_is_not_an_end() {
    let (a, b) = Node::pair();
    let error = all(a.transport.fetch(&b.peer(), b"panic".to_vec()).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(a.transport.request(&b.peer(), b"ok".to_vec()).await.unwrap(), b"ko");
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_goes_away_ends_the_fetch_on_both_ends() {
    let (a, b) = Node::pair();
    let mut items = a.transport.fetch(&b.peer(), wanted(1000, 1 << 20)).await.unwrap();
    for _ in 0..3 {
        items.next().await.unwrap().unwrap();
    }
    drop(items);
    while b.log.fetches_cut.load(SeqCst) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(a.transport.request(&b.peer(), b"ok".to_vec()).await.unwrap(), b"ko");
    stop([a, b]).await;
}
