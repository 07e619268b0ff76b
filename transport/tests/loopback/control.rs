use std::{sync::Arc, time::Duration};

use form_transport::{Envelope, Error, limits::CONTROL_MESSAGE_BYTES_MAX};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use crate::node::{Node, stop};

fn message(instance: &str, body: Vec<u8>) -> Envelope {
    Envelope { attempt: [7; 16], instance: instance.into(), body }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_whole_and_in_order() {
    let (a, mut b) = Node::pair();
    let peer = b.peer();
    // Of very different sizes: what is small must not overtake what is large.
    let bodies: Vec<_> = (0..300_usize).map(|n| vec![n as u8; if n % 100 == 50 { 9 << 20 } else { n * 13 }]).collect();
    let sent: Vec<_> = bodies.into_iter().map(|body| message("i", body)).collect();
    let sending = async {
        for message in &sent {
            a.transport.send(&peer, message.clone()).await.unwrap();
        }
    };
    let receiving = async {
        for message in &sent {
            assert!(*message == b.messages.recv().await.unwrap().1);
        }
    };
    tokio::join!(sending, receiving);
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_senders_share_a_connection_and_keep_their_own_order() {
    let (a, mut b) = Node::pair();
    let (a, peer) = (Arc::new(a), b.peer());
    let mut senders = JoinSet::new();
    for sender in 0..8_u8 {
        let a = Arc::clone(&a);
        senders.spawn(async move {
            for number in 0..50_u8 {
                a.transport.send(&peer, message(&sender.to_string(), vec![number])).await.unwrap();
            }
        });
    }
    let mut next = [0; 8];
    for _ in 0..8 * 50 {
        let got = b.next_message().await;
        let sender: usize = got.instance.parse().unwrap();
        assert_eq!(got.body, [next[sender]]);
        next[sender] += 1;
    }
    senders.join_all().await;
    // One dial for all of them: the listener asked for trust once.
    assert_eq!(b.log.trust_asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    stop([Arc::into_inner(a).unwrap(), b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_the_limit_is_not_sent() {
    let (a, mut b) = Node::pair();
    let over = message("i", vec![0; CONTROL_MESSAGE_BYTES_MAX as usize]);
    let error = a.transport.send(&b.peer(), over).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    let error = a.transport.send(&b.peer(), message(&"i".repeat(65), vec![])).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    a.transport.send(&b.peer(), message("i", b"fits".to_vec())).await.unwrap();
    assert_eq!(b.next_message().await.body, b"fits");
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_is_given_up_half_way_breaks_no_later_message() {
    let (a, mut b) = Node::pair();
    // The listener handles nothing, so a message larger than all windows gets stuck half way.
    b.log.gate.forget_permits(Semaphore::MAX_PERMITS);
    a.transport.send(&b.peer(), message("first", vec![1])).await.unwrap();
    let large = message("large", vec![2; CONTROL_MESSAGE_BYTES_MAX as usize - 1024]);
    let stuck = timeout(Duration::from_millis(500), a.transport.send(&b.peer(), large)).await;
    assert!(stuck.is_err(), "it fitted in the windows, so this test shows nothing");

    a.transport.send(&b.peer(), message("after", vec![3])).await.unwrap();
    b.log.gate.add_permits(10);
    let mut got = [b.next_message().await.instance, b.next_message().await.instance];
    // They come by two connections, so either may be first.
    got.sort();
    assert_eq!(got, ["after", "first"]);
    stop([a, b]).await;
}
