//! Who may do what.

use form_node::auth::Level;

use crate::client::{Call, call};
use crate::fake::{Nodes, id, key, nodes, owner};

fn grant(nodes: &Nodes, method: &'static str, level: Option<Level>, version: u64) -> Call {
    let mut body = serde_json::json!({"address": key(2).address(), "instance_id": id(1), "version": version});
    if let Some(level) = level {
        body["level"] = serde_json::json!(level);
    }
    call(method, "/api/v1/accounts/grants", &body.to_string()).signed(nodes, &key(1), Some(1))
}

/// The status that key 2 gets for each route, in order: start, commit, like, delete, grant.
async fn statuses(nodes: &Nodes) -> Vec<u16> {
    let body = serde_json::json!({"address": key(3).address(), "instance_id": id(1), "version": 1, "level": "Manager"});
    let calls = [
        call("POST", "/api/v1/instances/vm-1/start", ""),
        call("POST", "/api/v1/commit", r#"{"name":"vm-1"}"#),
        call("POST", "/api/v1/instances", r#"{"name":"new","like":"vm-1"}"#),
        call("DELETE", "/api/v1/instances/vm-1", ""),
        call("POST", "/api/v1/accounts/grants", &body.to_string()),
    ];
    let mut statuses = Vec::new();
    for call in calls {
        statuses.push(call.signed(nodes, &key(2), Some(1)).send(nodes.addrs[0]).await.status.as_u16());
    }
    statuses
}

#[tokio::test]
async fn each_level_opens_its_routes() {
    let nodes = nodes(1).await;
    assert_eq!(statuses(&nodes).await, [403, 403, 403, 403, 403], "nobody yet");
    let given = [
        (Level::ReadOnly, [403, 403, 403, 403, 403]),
        (Level::Operator, [200, 403, 403, 403, 403]),
        (Level::Manager, [200, 202, 200, 403, 403]),
    ];
    for (version, (level, expected)) in (1..).zip(given) {
        let reply = grant(&nodes, "POST", Some(level), version).send(nodes.addrs[0]).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        assert_eq!(statuses(&nodes).await, expected, "{level}");
    }
    let late = grant(&nodes, "POST", Some(Level::Operator), 3).send(nodes.addrs[0]).await;
    assert_eq!(late.error(), (409, "conflict".into()));
    assert_eq!(grant(&nodes, "DELETE", None, 9).send(nodes.addrs[0]).await.status, 200);
    assert_eq!(statuses(&nodes).await, [403, 403, 403, 403, 403], "taken back");
}

#[tokio::test]
async fn a_right_holds_for_the_whole_cluster() {
    let nodes = nodes(2).await;
    assert_eq!(grant(&nodes, "POST", Some(Level::Manager), 1).send(nodes.addrs[1]).await.status, 200);
    let commit = call("POST", "/api/v1/commit", r#"{"name":"vm-2"}"#).signed(&nodes, &key(2), Some(2));
    assert_eq!(commit.send(nodes.addrs[1]).await.status, 202);
}

#[tokio::test]
async fn whoever_makes_something_new_owns_it() {
    let nodes = nodes(1).await;
    let create = call("POST", "/api/v1/instances", r#"{"name":"new","spec":"x"}"#);
    let reply = create.clone().signed(&nodes, &key(7), None).send(nodes.addrs[0]).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_eq!(nodes.nodes[0].calls(), [format!("create new for {} like None", key(7).address())]);
    assert_eq!(create.send(nodes.addrs[0]).await.error(), (403, "not_allowed".into()), "but it must be signed");
    // Signed for something else, it is not a request for this.
    let create = call("POST", "/api/v1/instances", r#"{"name":"new","like":"vm-1"}"#);
    let reply = create.clone().signed(&nodes, &key(1), None).send(nodes.addrs[0]).await;
    assert_eq!(reply.error(), (403, "not_allowed".into()));
    assert_eq!(create.signed(&nodes, &key(1), Some(1)).send(nodes.addrs[0]).await.status, 200);
    assert_eq!(nodes.nodes[0].calls(), [format!("create new for {} like {:?}", owner(), Some(id(1)))]);
}

#[tokio::test]
async fn the_owner_deletes() {
    let nodes = nodes(1).await;
    let reply =
        call("DELETE", "/api/v1/instances/vm-1", "").signed(&nodes, &key(1), Some(1)).send(nodes.addrs[0]).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, serde_json::json!({})));
    assert_eq!(nodes.nodes[0].calls(), [format!("delete {}", id(1))]);
}

#[tokio::test]
async fn an_owner_that_only_the_store_knows_may_nothing() {
    let nodes = nodes(1).await;
    *nodes.nodes[0].pinned.lock().expect("lock") = Some(key(2).address());
    let start = call("POST", "/api/v1/instances/vm-1/start", "").signed(&nodes, &key(1), Some(1));
    assert_eq!(start.send(nodes.addrs[0]).await.error(), (403, "not_allowed".into()));
    assert_eq!(nodes.nodes[0].calls(), [""; 0]);
    *nodes.nodes[0].pinned.lock().expect("lock") = Some(key(1).address());
    let start = call("POST", "/api/v1/instances/vm-1/start", "").signed(&nodes, &key(1), Some(1));
    assert_eq!(start.send(nodes.addrs[0]).await.status, 200);
}
