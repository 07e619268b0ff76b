//! What bad input gets: a code, a message, and nothing done.

use crate::client::call;
use crate::fake::{id, key, nodes};

#[tokio::test]
async fn an_unknown_route_or_method_is_a_json_error() {
    let nodes = nodes(1).await;
    for path in ["/", "/api/v1/nothing", "/v2/node", "/api/v1/instances/a/b/c"] {
        assert_eq!(call("GET", path, "").send(nodes.addrs[0]).await.error(), (404, "not_found".into()), "{path}");
    }
    assert_eq!(call("PUT", "/api/v1/commit", "").send(nodes.addrs[0]).await.error(), (405, "bad_request".into()));
}

#[tokio::test]
async fn an_unknown_instance_or_attempt_is_not_found() {
    let nodes = nodes(1).await;
    let commit_id = format!(r#"{{"id":"{}"}}"#, id(77));
    let missing = [
        call("GET", &format!("/api/v1/instances/{}", id(77)), ""),
        call("GET", "/api/v1/instances/no-such-vm", ""),
        call("POST", "/api/v1/instances/no-such-vm/start", ""),
        call("POST", "/api/v1/instances/no-such-vm/stop", ""),
        call("DELETE", "/api/v1/instances/no-such-vm", ""),
        call("GET", "/api/v1/instances/no-such-vm/console", ""),
        call("GET", "/api/v1/attempts/ffff", ""),
        call("GET", "/api/v1/attempts/ffff/events", ""),
        call("POST", "/api/v1/commit", r#"{"name":"no-such-vm"}"#),
        call("POST", "/api/v1/commit", &commit_id),
        call("POST", "/api/v1/instances", r#"{"name":"new","like":"no-such-vm"}"#),
    ];
    for call in missing {
        let reply = call.clone().signed(&nodes, &key(1), Some(1)).send(nodes.addrs[0]).await;
        assert_eq!(reply.error(), (404, "not_found".into()), "{}", call.path);
    }
    assert_eq!(nodes.nodes[0].calls(), [""; 0]);
}

#[tokio::test]
async fn a_commit_names_one_instance_one_way() {
    let nodes = nodes(1).await;
    let both = format!(r#"{{"id":"{}","name":"vm-1"}}"#, id(1));
    for body in [both.as_str(), "{}", r#"{"description":"x"}"#] {
        let reply = call("POST", "/api/v1/commit", body).signed(&nodes, &key(1), Some(1)).send(nodes.addrs[0]).await;
        assert_eq!(reply.error(), (400, "bad_request".into()), "{body}");
    }
    assert_eq!(nodes.nodes[0].calls(), [""; 0]);
}

#[tokio::test]
async fn a_body_that_is_not_what_the_route_takes_is_refused() {
    let nodes = nodes(1).await;
    let grant =
        format!(r#"{{"address":"{}","instance_id":"{}","level":"Owner","version":1}}"#, key(2).address(), id(1));
    let by_name = format!(r#"{{"address":"{}","instance_id":"vm-1","level":"Manager","version":1}}"#, key(2).address());
    let large = format!(r#"{{"name":"vm-1","description":"{}"}}"#, "x".repeat(form_node::api::BODY_BYTES_MAX));
    let bad = [
        ("/api/v1/commit", ""),
        ("/api/v1/commit", "not json"),
        ("/api/v1/commit", r#"{"name":"vm-1","froce":true}"#),
        ("/api/v1/commit", r#"{"name":7}"#),
        ("/api/v1/commit", &large),
        ("/api/v1/instances", r#"{"name":"new"}"#),
        ("/api/v1/instances", r#"{"name":"new","spec":"","like":"vm-1"}"#),
        ("/api/v1/instances", r#"{"name":"No/Name","spec":""}"#),
        ("/api/v1/accounts/grants", r#"{"address":"zz","instance_id":"a","level":"Manager","version":1}"#),
        ("/api/v1/accounts/grants", &grant),
        ("/api/v1/accounts/grants", &by_name),
        ("/api/v1/accounts/grants", &grant.replace(r#""level":"Owner","#, "")),
    ];
    for (path, body) in bad {
        let reply = call("POST", path, body).signed(&nodes, &key(1), Some(1)).send(nodes.addrs[0]).await;
        assert_eq!(reply.error(), (400, "bad_request".into()), "{path} {body:.80}");
    }
    assert_eq!(nodes.nodes[0].calls(), [""; 0]);
}

#[tokio::test]
async fn what_the_node_says_reaches_the_client_with_its_status() {
    let nodes = nodes(1).await;
    let missing = call("GET", "/api/v1/node", "").send(nodes.addrs[0]).await;
    assert_eq!(missing.error(), (422, "missing_dependency".into()));
    assert_eq!(missing.json()["remedy"], "install one");
    let stop = call("POST", "/api/v1/instances/vm-1/stop", "").signed(&nodes, &key(1), Some(1));
    assert_eq!(stop.send(nodes.addrs[0]).await.error(), (409, "wrong_state".into()));
    assert_eq!(nodes.nodes[0].calls(), [format!("stop {}", id(1))]);
}
