use std::sync::{Arc, atomic::Ordering::SeqCst};

use form_transport::{
    Error, ErrorKind, PeerAddr,
    limits::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX},
    wire::CloseCode,
};
use tokio::task::JoinSet;

use crate::node::{LOOPBACK, Node, stop};

#[tokio::test(flavor = "multi_thread")]
async fn each_request_gets_its_own_reply() {
    let (a, b) = Node::pair();
    let (a, peer) = (Arc::new(a), b.peer());
    let mut asking = JoinSet::new();
    for n in 0..100_u32 {
        let a = Arc::clone(&a);
        asking.spawn(async move {
            let reply = a.transport.request(&peer, n.to_le_bytes().to_vec()).await.unwrap();
            assert_eq!(reply, n.to_be_bytes());
        });
    }
    asking.join_all().await;
    assert_eq!(b.log.requests.load(SeqCst), 100);
    assert_eq!(a.transport.request(&peer, Vec::new()).await.unwrap(), b"");
    stop([Arc::into_inner(a).unwrap(), b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_work_side_by_side() {
    let (a, b) = Node::pair();
    let (there, back) = (b.peer(), a.peer());
    let (one, two) =
        tokio::join!(a.transport.request(&there, b"ab".to_vec()), b.transport.request(&back, b"cd".to_vec()));
    assert_eq!((one.unwrap(), two.unwrap()), (b"ba".to_vec(), b"dc".to_vec()));
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_limited_on_both_ends() {
    let (a, b) = Node::pair();
    assert_eq!(REQUEST_BYTES_MAX, REPLY_BYTES_MAX);
    let largest = vec![5; REQUEST_BYTES_MAX as usize];
    assert_eq!(a.transport.request(&b.peer(), largest.clone()).await.unwrap(), largest);

    let over = vec![5; REQUEST_BYTES_MAX as usize + 1];
    let error = a.transport.request(&b.peer(), over).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");

    let error = a.transport.request(&b.peer(), b"big".to_vec()).await.unwrap_err();
    assert!(matches!(error, Error::Rejected { code, .. } if code == CloseCode::Limit as u64), "{error:?}");
    // That was one stream's end, not the connection's.
    assert_eq!(a.transport.request(&b.peer(), b"ok".to_vec()).await.unwrap(), b"ko");
    assert_eq!(b.log.trust_asked.load(SeqCst), 1);
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_an_error_that_names_whom_and_where() {
    let (a, b) = Node::pair();
    // A socket that never answers, so that nobody else can take the port.
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let peer = PeerAddr { id: b.key.id(), addr: silent.local_addr().unwrap() };
    let error = a.transport.request(&peer, b"hello".to_vec()).await.unwrap_err();
    assert!(matches!(error, Error::ConnectTimeout { peer: id, addr } if (id, addr) == (peer.id, peer.addr)));
    assert_eq!(error.kind(), ErrorKind::Retryable);
    stop([a, b]).await;
}
