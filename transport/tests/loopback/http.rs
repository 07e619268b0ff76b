use form_transport::{Error, limits::RECEIVE_WINDOW_BYTES_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{Node, stop};

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let (a, b) = Node::pair();
    let (mut reader, mut writer) = tokio::io::split(a.transport.open_http(&b.peer()).await.unwrap());
    // More than a window, so that both directions have to move.
    let sent: Vec<u8> = (0..RECEIVE_WINDOW_BYTES_MAX * 2).map(|n| (n / 7) as u8).collect();
    let mut got = Vec::new();
    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let ((), read) = tokio::join!(writing, reader.read_to_end(&mut got));
    assert_eq!(read.unwrap(), sent.len());
    assert!(got == sent);
    stop([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_node_gets_no_stream() {
    let (a, b) = (Node::start(), Node::start());
    a.knows(&b);
    let error = a.transport.open_http(&b.peer()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    stop([a, b]).await;
}
