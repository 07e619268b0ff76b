use form_transport::{SocketBytes, limits::DATAGRAM_BYTES_MAX};

use crate::node::{Node, all, stop, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn socket_bytes_hold_the_payload_and_little_more() {
    const PAYLOAD_BYTES: u64 = 16 << 20;
    let (a, b) = Node::pair();
    let (a_id, b_id) = (a.key.id(), b.key.id());
    assert_eq!(b.transport.socket_bytes(a_id), SocketBytes::default());
    all(a.transport.fetch(&b.peer(), wanted(16, 1 << 20)).await).await.unwrap();

    let at_a = a.transport.socket_bytes(b_id);
    let at_b = b.transport.socket_bytes(a_id);
    assert!(at_a.received >= PAYLOAD_BYTES, "{at_a:?}");
    // What left b is what reached a, or was lost and sent again.
    assert!(at_b.sent >= at_a.received, "{at_b:?} {at_a:?}");
    // Headers and tags take 3 % of a small datagram. The rest is room for datagrams that a busy machine drops.
    assert!(at_b.sent < PAYLOAD_BYTES + PAYLOAD_BYTES / 4, "{at_b:?}");
    // No datagram carries more than the largest there is.
    assert!(at_b.datagrams_sent >= PAYLOAD_BYTES / u64::from(DATAGRAM_BYTES_MAX), "{at_b:?}");
    // This path takes them: after a few probes, all but the first are as large.
    assert!(at_b.datagrams_sent < PAYLOAD_BYTES / 3000, "{at_b:?}");
    // Requests and acknowledgements go the other way.
    assert!(at_a.sent > 0 && at_a.sent < PAYLOAD_BYTES / 4, "{at_a:?}");
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_bytes_add_up_over_connections_and_tell_peers_apart() {
    let (a, b) = Node::pair();
    let c = Node::start();
    a.knows(&c);
    c.knows(&a);
    a.transport.request(&b.peer(), vec![1; 100_000]).await.unwrap();
    let first = a.transport.socket_bytes(b.key.id());
    assert!(first.sent >= 100_000);
    // The other direction is another connection to the same peer.
    b.transport.request(&a.peer(), vec![1; 100_000]).await.unwrap();
    let both = a.transport.socket_bytes(b.key.id());
    assert!(both.received >= first.received + 100_000 && both.sent >= first.sent + 100_000, "{both:?}");
    assert_eq!(a.transport.socket_bytes(c.key.id()), SocketBytes::default());

    let (b_id, b_peer, b_key) = (b.key.id(), b.peer(), b.copy_of_key());
    stop([b]).await;
    let b = Node::start_as(b_key, b_peer.addr);
    b.knows(&a);
    a.transport.request(&b_peer, vec![1; 100_000]).await.unwrap();
    let after = a.transport.socket_bytes(b_id);
    assert!(after.sent >= both.sent + 100_000, "what a connection that ended has carried is forgotten");
    assert!(b.transport.socket_bytes(a.key.id()).received < 200_000, "a new transport counts from zero");
    stop([a, b, c]).await;
}
