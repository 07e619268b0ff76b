use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use form_transport::{Envelope, Error, ErrorKind, NodeKey};
use quinn::ConnectionError;
use tokio::runtime::Runtime;

use crate::node::{LOOPBACK, Node, all, stop, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_made_again_after_the_peer_was_stopped_and_started() {
    let (a, b) = Node::pair();
    let (peer, key) = (b.peer(), b.copy_of_key());
    a.transport.request(&peer, b"before".to_vec()).await.unwrap();
    stop([b]).await;

    let mut b = Node::start_as(key, peer.addr);
    b.knows(&a);
    let message = Envelope { attempt: [1; 16], instance: "i".into(), body: b"after".to_vec() };
    a.transport.send(&peer, message.clone()).await.unwrap();
    assert_eq!(b.next_message().await, message);
    assert_eq!(a.transport.request(&peer, b"ab".to_vec()).await.unwrap(), b"ba");
    assert_eq!(b.log.trust_asked.load(SeqCst), 1, "message and request share the new connection");
    stop([a, b]).await;
}

#[test]
fn a_killed_peer_is_noticed_by_its_first_packet_after_the_restart() {
    let own = Runtime::new().unwrap();
    let doomed = Runtime::new().unwrap();
    let a = own.block_on(async { Node::start() });
    let b = doomed.block_on(async { Node::start_as(NodeKey::generate().unwrap(), LOOPBACK) });
    a.knows(&b);
    b.knows(&a);
    let (peer, key) = (b.peer(), b.copy_of_key());
    own.block_on(a.transport.request(&peer, b"before".to_vec())).unwrap();
    // All its tasks are gone at once: nothing can be said to the peer any more.
    doomed.shutdown_timeout(Duration::from_secs(10));
    drop(b);

    own.block_on(async {
        let b = Node::start_as(key, peer.addr);
        b.knows(&a);
        // The new process answers the old connection's packet by a stateless reset that the peer believes. Had it
        // not, the old connection would only end by its idle timeout, which is another error.
        let error = all(a.transport.fetch(&peer, wanted(1, 1)).await).await.unwrap_err();
        assert!(matches!(error, Error::Lost { source: ConnectionError::Reset, .. }), "{error:?}");
        all(a.transport.fetch(&peer, wanted(1, 1)).await).await.unwrap();
        stop([a, b]).await;
    });
}

/// Nothing answers for it, and no packet of ours is refused: only its silence tells.
#[test]
fn a_killed_peer_that_stays_away_is_noticed_by_its_silence() {
    let own = Runtime::new().unwrap();
    let doomed = Runtime::new().unwrap();
    let a = own.block_on(async { Node::start() });
    let b = doomed.block_on(async { Node::start_as(NodeKey::generate().unwrap(), LOOPBACK) });
    a.knows(&b);
    b.knows(&a);
    let peer = b.peer();
    let mut items = own.block_on(a.transport.fetch(&peer, wanted(1000, 1 << 20))).unwrap();
    own.block_on(items.next()).unwrap().unwrap();
    doomed.shutdown_timeout(Duration::from_secs(10));
    drop(b);
    own.block_on(async {
        let error = loop {
            if let Err(error) = items.next().await {
                break error;
            }
        };
        assert!(matches!(error, Error::Lost { source: ConnectionError::TimedOut, .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Retryable);
        drop(items);
        stop([a]).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_transport_says_so() {
    let (a, b) = Node::pair();
    a.transport.request(&b.peer(), b"before".to_vec()).await.unwrap();
    a.transport.close().await;
    let error = a.transport.request(&b.peer(), b"after".to_vec()).await.unwrap_err();
    assert!(matches!(error, Error::Closed), "{error:?}");
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_a_fetch_that_is_under_way() {
    let (a, b) = Node::pair();
    let peer = b.peer();
    let mut items = a.transport.fetch(&peer, wanted(1000, 1 << 20)).await.unwrap();
    items.next().await.unwrap().unwrap();
    let stopping = tokio::spawn(stop([b]));
    let mut count = 1;
    let error = loop {
        match items.next().await {
            Ok(item) => count += item.into_iter().count(),
            Err(error) => break error,
        }
    };
    // Told by the peer, with a full congestion window in between, and not found out by the idle timeout.
    assert!(matches!(error, Error::Lost { source: ConnectionError::ApplicationClosed(_), .. }), "{error:?}");
    assert!(count < 1000);
    stopping.await.unwrap();
    stop([a]).await;
}
