//! `form manage status --watch`: a line for each change, and who waits for whom.

use std::io::{BufRead, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::fake_node::{ATTEMPT, Answer, CLUSTER, FakeNode, INSTANCE, instance};
use crate::run::{command, form};

/// Well; then an attempt whose outcome the store does not say; then away; then well again.
fn node() -> FakeNode {
    FakeNode::start(|request, before| {
        let own = instance()["node_id"].clone();
        match request.path.strip_prefix("/api/v1/")? {
            "flight" => Some(match before {
                1 | 2 => {
                    let attempt = json!({ "attempt_id": ATTEMPT, "cluster_id": CLUSTER, "instance_id": INSTANCE, "epoch": 3,
                        "phase": "commit", "phase_ms": 2000 + before * 1000, "age_ms": 9000, "decided": false });
                    let participant = json!({ "instance_id": INSTANCE, "name": "demo-1", "cluster_id": CLUSTER,
                        "attempt_id": ATTEMPT, "epoch": 3, "coordinator": own, "role": "target", "step": "active" });
                    let view = json!({ "node_id": own, "store_silent_ms": before * 1000, "attempts": [attempt],
                        "participants": [participant] });
                    Answer::Json(200, view)
                }
                3 => Answer::Json(503, json!({ "code": "unavailable", "message": "the node is starting" })),
                _ => Answer::Json(
                    200,
                    json!({ "node_id": own, "store_silent_ms": null, "attempts": [], "participants": [] }),
                ),
            }),
            "instances" => Some(match before {
                1 | 2 => {
                    Answer::Json(503, json!({ "code": "unavailable", "message": "the state store could not read" }))
                }
                _ => Answer::Json(200, json!([instance()])),
            }),
            _ => None,
        }
    })
}

/// The first lines of a watch, which is then ended by Ctrl-C.
fn watched(node: &FakeNode, more: &[&str], count: usize) -> Vec<String> {
    let words = [&["manage", "status", "--watch", "--node", &node.url], more].concat();
    let mut child = command(&words).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take(count).collect();
    assert_eq!(interrupted(&mut child), Some(130));
    said
}

fn interrupted(child: &mut Child) -> Option<i32> {
    rustix::process::kill_process(Pid::from_child(child), Signal::INT).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn each_change_is_a_line_and_time_alone_is_none() {
    let said = watched(&node(), &["-n", "demo-1"], 11);
    let (times, texts): (Vec<&str>, Vec<&str>) = said.iter().map(|line| line.split_once("  ").unwrap()).unzip();
    assert!(times.iter().all(|time| time.len() == 23 && time.ends_with(" UTC")), "{said:#?}");
    assert_eq!(
        texts,
        [
            "node d0d0d0d0d0d0 answers",
            "cluster c1c1c1c1c1c1, head 4ead4ead4ead",
            "demo-1: Started, head 4ead4ead4ead, on node d0d0d0d0d0d0",
            "cluster c1c1c1c1c1c1: no attempt in flight",
            "the state store has not answered for 1 s (the state store could not read): no commit begins or ends until it does; \
             bring it back",
            "attempt a7a7a7a7a7a7: commit for 3 s, waits for the state store, which decides; begun 9 s ago, epoch 3, \
             coordinated by node d0d0d0d0d0d0",
            "demo-1 is active: paused, with the new VM at hand; it waits for the outcome",
            "demo-1 waits for the outcome; the state store has not answered for 1 s: everyone waits (the one blocking window). \
             Bring the store back: nothing else ends it, and nothing is lost meanwhile",
            "the node is starting; asked again every second, and what it said last still stands",
            "node d0d0d0d0d0d0 answers",
            "cluster c1c1c1c1c1c1: no attempt in flight",
        ]
    );
}

#[test]
fn as_json_each_change_is_an_object() {
    let said = watched(&node(), &["--json"], 4);
    let said: Vec<Value> = said.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let own = instance()["node_id"].as_str().unwrap().to_owned();
    let lost: Vec<bool> = said.iter().map(|picture| !picture["lost"].is_null()).collect();
    assert_eq!(lost, [false, false, true, false]);
    assert_eq!(said[1]["flight"][&own]["participants"][0]["step"], json!("active"));
    assert!(said[1]["waits"].to_string().contains("the one blocking window"), "{}", said[1]);
    assert_eq!(said[3]["clusters"][0]["cluster_id"], json!(CLUSTER));
}

#[test]
fn a_node_that_never_answered_is_an_error() {
    let ran = form(&["manage", "status", "--watch", "--node", "http://127.0.0.1:1"]);
    assert_eq!(ran.code, 9, "{ran}");
    let unknown = form(&["manage", "status", "--watch", "-n", "nobody", "--node", &node().url]);
    assert_eq!(unknown.code, 3, "{unknown}");
}
