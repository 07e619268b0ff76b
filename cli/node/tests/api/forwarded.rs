//! Requests for another node's instances.

use std::time::Duration;

use form_node::store::{Begin, BeginRequest, NodeRecord, Other};

use crate::client::call;
use crate::fake::{CLUSTER, id, key, nodes};

#[tokio::test]
async fn a_request_is_done_where_the_instance_is() {
    let nodes = nodes(2).await;
    let commit = call("POST", "/v1/commit", r#"{"name":"vm-2","description":"d"}"#).signed(&nodes, &key(1), Some(2));
    let reply = commit.send(nodes.addrs[0]).await;
    assert_eq!(reply.status, 202, "{:?}", reply.body);
    assert_eq!(reply.json()["instance_id"], id(2));
    let start = call("POST", "/api/v1/instances/vm-2/start", "").signed(&nodes, &key(1), Some(2));
    assert_eq!(start.send(nodes.addrs[0]).await.status, 200);
    assert_eq!(nodes.nodes[0].calls(), [""; 0]);
    let owner = key(1).address();
    assert_eq!(nodes.nodes[1].calls(), [format!("commit {} by {owner}: d", id(2)), format!("start {}", id(2))]);
    // Passed on or not, it is the same request.
    assert_eq!(start.send(nodes.addrs[0]).await.error(), (403, "replayed_request".into()));
    assert_eq!(start.send(nodes.addrs[1]).await.error(), (403, "replayed_request".into()));
    assert_eq!(nodes.nodes[1].calls(), [""; 0]);
}

#[tokio::test]
async fn the_other_node_checks_and_its_errors_come_back() {
    let nodes = nodes(2).await;
    let stranger = call("POST", "/api/v1/commit", r#"{"name":"vm-2"}"#).signed(&nodes, &key(5), Some(2));
    assert_eq!(stranger.send(nodes.addrs[0]).await.error(), (403, "not_allowed".into()));
    let stop = call("POST", "/api/v1/instances/vm-2/stop", "").signed(&nodes, &key(1), Some(2));
    assert_eq!(stop.send(nodes.addrs[0]).await.error(), (409, "wrong_state".into()));
    assert_eq!(nodes.nodes[1].calls(), [format!("stop {}", id(2))]);
}

#[tokio::test]
async fn a_request_does_not_go_round_in_circles() {
    let nodes = nodes(2).await;
    let start = call("POST", "/api/v1/instances/vm-2/start", "").signed(&nodes, &key(1), Some(2));
    let reply = start.header("x-form-forwarded", "some-node").send(nodes.addrs[0]).await;
    assert_eq!(reply.error(), (503, "unavailable".into()));
    assert_eq!(nodes.nodes[1].calls(), [""; 0]);
}

#[tokio::test]
async fn a_node_that_is_away_is_unavailable() {
    let nodes = nodes(2).await;
    let away = form_transport::NodeKey::generate().expect("key").id().to_string();
    nodes.store.update_instance(&id(2), |instance| instance.node_id.clone_from(&away)).await.expect("move");
    let start = call("POST", "/api/v1/instances/vm-2/start", "").signed(&nodes, &key(1), Some(2));
    assert_eq!(start.send(nodes.addrs[0]).await.error(), (503, "unavailable".into()), "not enrolled");
    let quiet = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    let record = NodeRecord {
        node_id: away,
        api_addr: "127.0.0.1:1".into(),
        quic_addr: quiet.local_addr().expect("addr").to_string(),
        enrolled_at: 1,
        other: Other::new(),
    };
    drop(quiet);
    nodes.store.put_node(&record).await.expect("enrol");
    assert_eq!(start.send(nodes.addrs[0]).await.error(), (503, "unavailable".into()), "nobody listens");
}

#[tokio::test]
async fn an_attempt_is_asked_of_its_coordinator() {
    let nodes = nodes(2).await;
    let coordinator = nodes.store.instance(&id(2)).await.expect("read").expect("there").node_id;
    let request = BeginRequest {
        cluster_id: CLUSTER.into(),
        source_instance: id(2),
        parent: None,
        request_hash: "r".into(),
        coordinator,
        participants: vec![],
        membership_rev: 2,
        began_ms: 1,
        lease: Duration::from_secs(600),
    };
    let Begin::Begun { attempt } = nodes.store.begin(&request).await.expect("begin") else { panic!("begun") };
    for addr in &nodes.addrs {
        let path = format!("/api/v1/attempts/{}", attempt.attempt_id);
        let reply = call("GET", &path, "").send(*addr).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["outcome"]), (200, &"pending".into()));
        let events = call("GET", &format!("{path}/events"), "").send(*addr).await;
        assert_eq!(events.headers["content-type"], "text/event-stream");
        assert_eq!(String::from_utf8_lossy(&events.body).matches("event: progress").count(), 3);
    }
    let view = call("GET", "/api/v1/instances/vm-1", "").send(nodes.addrs[0]).await.json();
    assert_eq!(view["attempt_id"], attempt.attempt_id);
}
