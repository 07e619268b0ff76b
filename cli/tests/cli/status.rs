//! `form manage instances` and `status`: what is there, what it runs, and what is under way.

use crate::fake_node::{ATTEMPT, Answer, CLUSTER, FakeNode, HEAD, INSTANCE, instance};
use crate::run::form;
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};

/// A head and a replica, one that a commit left out, and another cluster. The first two are in an attempt, if any.
fn instances(attempt: Option<&str>) -> Vec<Value> {
    let like = |name: &str, digit: &str| {
        let mut other = instance();
        (other["name"], other["instance_id"], other["local"]) = (json!(name), json!(digit.repeat(40)), json!(false));
        other["attempt_id"] = json!(attempt);
        other
    };
    let (mut left_out, mut stranger) = (like("demo-3", "3"), like("web", "4"));
    left_out["snapshot_id"] = json!("01d0".repeat(16));
    left_out["snapshots"] = json!([]);
    stranger["cluster_id"] = json!("ee".repeat(20));
    (stranger["snapshot_id"], stranger["attempt_id"]) = (Value::Null, Value::Null);
    let mut first = like("demo-1", "1");
    (first["instance_id"], first["local"]) = (json!(INSTANCE), json!(true));
    vec![first, like("demo-2", "2"), left_out, stranger]
}

fn node(attempt: Option<Value>) -> FakeNode {
    let list = instances(attempt.as_ref().map(|_| ATTEMPT));
    FakeNode::start(move |request, _| match request.path.strip_prefix("/api/v1/")? {
        "instances" => Some(Answer::Json(200, json!(list))),
        path => match path.strip_prefix("instances/") {
            Some(asked) => {
                let found = list.iter().find(|one| one["name"] == asked || one["instance_id"] == asked)?;
                Some(Answer::Json(200, found.clone()))
            }
            None if path == format!("attempts/{ATTEMPT}") => attempt.clone().map(|attempt| Answer::Json(200, attempt)),
            None => None,
        },
    })
}

fn attempt(outcome: &str, settled: bool, last_event: Value) -> Option<Value> {
    Some(json!({ "attempt_id": ATTEMPT, "instance_id": INSTANCE, "outcome": outcome, "settled": settled,
                 "last_event": last_event, "waits_for": [] }))
}

#[test]
fn the_list_is_flat() {
    let node = node(None);
    assert_data_eq!(
        form(&["manage", "instances", "--node", &node.url]).to_string(),
        str![[r#"
exit 0
name    status   commit        cluster       node                     id
demo-1  Started  4ead4ead4ead  c1c1c1c1c1c1  d0d0d0d0d0d0 (this one)  0101010101010101010101010101010101010101
demo-2  Started  4ead4ead4ead  c1c1c1c1c1c1  d0d0d0d0d0d0             2222222222222222222222222222222222222222
demo-3  Started  01d001d001d0  c1c1c1c1c1c1  d0d0d0d0d0d0             3333333333333333333333333333333333333333
web     Started  -             eeeeeeeeeeee  d0d0d0d0d0d0             4444444444444444444444444444444444444444

"#]]
    );
}

#[test]
fn one_instance_while_its_cluster_commits() {
    let event = json!({ "type": "bytes", "target": "demo-2", "phase": "apply memory", "done": 1024, "total": 4096 });
    let node = node(attempt("pending", false, event));
    assert_data_eq!(
        form(&["manage", "status", "-n", "demo-1", "--node", &node.url]).to_string(),
        str![[r#"
exit 0
demo-1: Started
id        0101010101010101010101010101010101010101
cluster   c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1
node      d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0
owner     f39fd6e51aad88f6f4ce6ab8827279cfffb92266
commit    4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead
attempt   a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7
          pending; demo-2: apply memory, 1.0 KiB of 4.0 KiB; all wait for it

name    status   commit        cluster       node                     id
demo-1  Started  4ead4ead4ead  c1c1c1c1c1c1  d0d0d0d0d0d0 (this one)  0101010101010101010101010101010101010101
demo-2  Started  4ead4ead4ead  c1c1c1c1c1c1  d0d0d0d0d0d0             2222222222222222222222222222222222222222
demo-3  Started  01d001d001d0  c1c1c1c1c1c1  d0d0d0d0d0d0             3333333333333333333333333333333333333333

commits, oldest first:
4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead  2026-11-18 11:06:40 UTC  first

"#]]
    );
}

#[test]
fn one_instance_when_nothing_is_under_way() {
    let node = node(None);
    let ran = form(&["manage", "status", "-n", "demo-1", "--node", &node.url]);
    let line = ran.stdout.lines().find(|line| line.starts_with("attempt")).unwrap();
    assert_eq!(line, "attempt   none in flight; the last commit was made on 2026-11-18 11:06:40 UTC");
    assert_data_eq!(
        form(&["manage", "status", "-n", "demo-9", "--node", &node.url]).to_string(),
        str![[r#"
exit 3
error: no such thing

"#]]
    );
}

#[test]
fn an_outcome_says_whether_it_is_settled() {
    let error = json!({ "code": "target_unavailable", "message": "demo-2 is down" });
    for (outcome, settled, event, shown) in [
        ("committed", true, json!({ "type": "settled", "summary": null }), "committed and settled"),
        (
            "committed",
            false,
            json!({ "type": "phase", "phase": "finalize", "at_ms": 9 }),
            "committed, not settled yet; finalize: waits for everyone to acknowledge the commit",
        ),
        (
            "aborted",
            false,
            json!({ "type": "failed", "error": error }),
            "aborted, not settled yet; failed: demo-2 is down; being undone",
        ),
    ] {
        let node = node(attempt(outcome, settled, event));
        let ran = form(&["manage", "status", "-n", "demo-1", "--node", &node.url]);
        let lines: Vec<&str> = ran.stdout.lines().skip_while(|line| !line.starts_with("attempt")).collect();
        assert_eq!(lines[..2], [&format!("attempt   {ATTEMPT}")[..], &format!("          {shown}")]);
    }
}

#[test]
fn all_clusters_by_their_heads() {
    let event = json!({ "type": "phase", "target": "demo-2", "phase": "ready", "at_ms": 9 });
    let node = node(attempt("pending", false, event));
    assert_data_eq!(
        form(&["manage", "status", "--node", &node.url]).to_string(),
        str![[r#"
exit 0
cluster c1c1c1c1c1c1, head 4ead4ead4ead
attempt a7a7a7a7a7a7: pending; demo-2 has built its images, and waits for those that have not
name    status   commit                node                     id
demo-1  Started  head                  d0d0d0d0d0d0 (this one)  0101010101010101010101010101010101010101
demo-2  Started  head                  d0d0d0d0d0d0             2222222222222222222222222222222222222222
demo-3  Started  01d001d001d0, behind  d0d0d0d0d0d0             3333333333333333333333333333333333333333

cluster eeeeeeeeeeee, head none yet
no attempt in flight
name  status   commit  node          id
web   Started  -       d0d0d0d0d0d0  4444444444444444444444444444444444444444

"#]]
    );
    let all = form(&["manage", "status", "--json", "--node", &node.url]);
    let all: Value = serde_json::from_str(&all.stdout).unwrap();
    let clusters = all["clusters"].as_array().unwrap();
    assert_eq!(clusters.len(), 2);
    let first = &clusters[0];
    assert_eq!((&first["cluster_id"], &first["head"]), (&json!(CLUSTER), &json!(HEAD)));
    assert_eq!((&first["attempt_id"], &first["attempt"]["outcome"]), (&json!(ATTEMPT), &json!("pending")));
    assert_eq!(first["instances"].as_array().map(Vec::len), Some(3));
    assert_eq!((&clusters[1]["head"], &clusters[1]["attempt"]), (&Value::Null, &Value::Null));
}

#[test]
fn an_installation_without_instances() {
    let node =
        FakeNode::start(|request, _| (request.path == "/api/v1/instances").then(|| Answer::Json(200, json!([]))));
    let ran = form(&["manage", "status", "--node", &node.url]);
    assert_eq!(ran.to_string(), "exit 0\nno instances yet: make one with form manage create\n");
}
