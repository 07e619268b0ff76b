use std::sync::atomic::Ordering::SeqCst;

use form_transport::{Error, ErrorKind, PeerAddr, SocketBytes, Transport};

use crate::node::{Node, stop};

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_refuses_an_unknown_key() {
    let (a, b) = (Node::start(), Node::start());
    a.knows(&b);
    let error = a.transport.request(&b.peer(), b"hello".to_vec()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { peer } if peer == b.key.id()), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().starts_with("refused: unknown node key"), "{error}");
    assert_eq!(b.log.trust_asked.load(SeqCst), 1);
    assert_eq!(b.log.requests.load(SeqCst), 0);

    // Once the key is known, the next call makes a connection that holds.
    b.knows(&a);
    assert_eq!(a.transport.request(&b.peer(), b"abc".to_vec()).await.unwrap(), b"cba");
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_refuses_an_unknown_key_without_a_word() {
    let (a, b) = (Node::start(), Node::start());
    b.knows(&a);
    let error = a.transport.request(&b.peer(), b"hello".to_vec()).await.unwrap_err();
    assert!(matches!(error, Error::UnknownPeer { peer } if peer == b.key.id()), "{error:?}");
    assert!(error.to_string().starts_with("refused: unknown node key"), "{error}");
    assert_eq!(b.log.trust_asked.load(SeqCst), 0);
    assert_eq!(a.transport.socket_bytes(b.key.id()), SocketBytes::default());
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_refuses_another_key_than_it_dialed() {
    let (a, b, c) = (Node::start(), Node::start(), Node::start());
    for other in [&b, &c] {
        a.knows(other);
        other.knows(&a);
    }
    let b_at_c = PeerAddr { id: b.key.id(), addr: c.transport.local_addr() };
    let error = a.transport.request(&b_at_c, b"hello".to_vec()).await.unwrap_err();
    match &error {
        Error::WrongKey { addr, expected, found } => {
            assert_eq!((*addr, *expected, *found), (b_at_c.addr, b.key.id(), c.key.id()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.kind(), ErrorKind::Refused);
    // The handshake never ended at the impostor: it did not learn who dialed.
    assert_eq!(c.log.trust_asked.load(SeqCst), 0);
    stop([a, b, c]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_named() {
    let a = Node::start();
    let again = Transport::bind(a.transport.local_addr(), &a.key, a.log.clone());
    let error = again.unwrap_err();
    assert!(matches!(error, Error::Bind { addr, .. } if addr == a.transport.local_addr()), "{error:?}");
    stop([a]).await;
}
