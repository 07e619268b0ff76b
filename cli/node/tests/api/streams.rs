//! What does not end with its answer: events, and the console.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::client::{Call, call};
use crate::fake::{ATTEMPT, Nodes, id, key, nodes};

#[tokio::test]
async fn events_come_as_server_sent_events_and_end() {
    let nodes = nodes(1).await;
    let reply = call("GET", &format!("/v1/attempts/{ATTEMPT}/events"), "").send(nodes.addrs[0]).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let text = String::from_utf8(reply.body.to_vec()).expect("text");
    let types: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| {
            serde_json::from_str::<serde_json::Value>(data).expect("json")["type"].as_str().expect("type").into()
        })
        .collect();
    assert_eq!(types, ["phase", "snapshot", "settled"]);
    assert_eq!(text.matches("event: progress\n").count(), 3);
}

/// A guest that answers each line it gets, in capitals.
fn guest(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("bind");
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("accept");
        client.write_all(b"login: ").await.expect("write");
        let mut buffer = [0; 64];
        loop {
            match client.read(&mut buffer).await.expect("read") {
                0 => return,
                n => client.write_all(&buffer[..n].to_ascii_uppercase()).await.expect("write"),
            }
        }
    });
}

fn console(nodes: &Nodes, n: u32, signer: u8) -> Call {
    call("GET", &format!("/api/v1/instances/vm-{n}/console"), "")
        .signed(nodes, &key(signer), Some(n))
        .header("connection", "Upgrade")
        .header("upgrade", "form-console")
}

#[tokio::test]
async fn a_console_is_bytes_both_ways_here_and_through_another_node() {
    let nodes = nodes(2).await;
    for (n, through) in [(1, 0), (2, 0)] {
        let socket = nodes.dir.path().join(format!("console-{n}"));
        guest(&socket);
        // Its real place has a longer path than a socket's address can have.
        let deep = nodes.dir.path().join("d".repeat(120)).join(n.to_string());
        std::fs::create_dir_all(&deep).expect("mkdir");
        let socket = {
            std::fs::rename(&socket, deep.join("console")).expect("move");
            deep.join("console")
        };
        *nodes.nodes[n - 1].console.lock().expect("lock") = Some(socket);
        let number = u32::try_from(n).expect("small");
        let response = console(&nodes, number, 1).open(nodes.addrs[through]).await;
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["upgrade"], "form-console");
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.expect("upgrade"));
        let mut text = [0; 7];
        stream.read_exact(&mut text).await.expect("read");
        assert_eq!(&text, b"login: ");
        for word in [b"root", b"echo"] {
            stream.write_all(word).await.expect("write");
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).await.expect("read");
            assert_eq!(echo, word.to_ascii_uppercase().as_slice());
        }
        assert_eq!(nodes.nodes[n - 1].calls(), [format!("console {}", id(number))]);
    }
}

#[tokio::test]
async fn a_console_needs_its_right_and_its_upgrade() {
    let nodes = nodes(1).await;
    let stranger = console(&nodes, 1, 2).send(nodes.addrs[0]).await;
    assert_eq!(stranger.error(), (403, "not_allowed".into()));
    let plain = call("GET", "/api/v1/instances/vm-1/console", "").signed(&nodes, &key(1), Some(1));
    assert_eq!(plain.send(nodes.addrs[0]).await.error(), (400, "bad_request".into()));
    assert_eq!(nodes.nodes[0].calls(), [""; 0]);
    let stopped = console(&nodes, 1, 1).send(nodes.addrs[0]).await;
    assert_eq!(stopped.error(), (409, "wrong_state".into()));
    *nodes.nodes[0].console.lock().expect("lock") = Some(nodes.dir.path().join("gone"));
    let gone = console(&nodes, 1, 1).send(nodes.addrs[0]).await;
    assert_eq!(gone.error(), (409, "wrong_state".into()), "its socket is gone");
}
