//! A commit as the command line shows it, against a node that says what it is told to.

use std::io::{BufRead, BufReader, Read};

use crate::fake_node::{ATTEMPT, Answer, CLUSTER, FakeNode, HEAD, INSTANCE, Request, instance};
use crate::run::{Ran, form};
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};

const JUNK: &str = "test test test test test test test test test test test junk";
pub(crate) const NEW: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";

pub(crate) fn phase(target: Option<&str>, phase: &str, at_ms: u64) -> Value {
    match target {
        Some(target) => json!({ "type": "phase", "target": target, "phase": phase, "at_ms": at_ms }),
        None => json!({ "type": "phase", "phase": phase, "at_ms": at_ms }),
    }
}

pub(crate) fn good() -> Vec<Value> {
    let (memory, disk) = ("aa".repeat(32), "bb".repeat(32));
    vec![
        phase(None, "preflight", 0),
        phase(None, "pause", 812),
        json!({ "type": "snapshot", "snapshot_id": NEW }),
        phase(None, "stage", 1007),
        json!({ "type": "bytes", "target": "demo-2", "phase": "send", "done": 1 << 20, "total": 3 << 20 }),
        json!({ "type": "bytes", "target": "demo-2", "phase": "send", "done": 3 << 20, "total": 3 << 20 }),
        phase(Some("demo-2"), "ready", 1512),
        json!({ "type": "committed", "snapshot_id": NEW }),
        json!({ "type": "settled", "summary": {
            "snapshot_id": NEW, "parent": HEAD, "source": "demo-1", "pause_ns": 84_100_000,
            "pause_parts_ns": { "cont": 1_100_000, "copy": 70_000_000, "device state": 11_000_000, "stop": 2_000_000 }, "warm_rounds": 2,
            "paused_read_bytes": 17 << 20,
            "paused_written_bytes": 3 << 20, "total_ms": 4200, "phases_ms": { "pause": 120, "preflight": 12 },
            "ram_allocated_bytes": 212 << 20, "disk_allocated_bytes": 731 << 20,
            "artifacts": [
                { "name": "memory", "root": memory, "image_bytes": 512 << 20, "changed_bytes": 9 << 20,
                  "delta_bytes": 2 << 20,
                  "recipes": { "copy": 600, "keep": 648, "raw": 4096, "zero": 0, "zstd": 2 << 20, "zstd_prefix": 9999 } },
                { "name": "disk0", "root": disk, "image_bytes": 2_u64 << 30, "changed_bytes": 3 << 20,
                  "delta_bytes": 1 << 20, "recipes": {} },
            ],
            "targets": [
                { "instance": "demo-2", "node_id": "d1".repeat(32), "sent_bytes": 3_300_000, "sent_datagrams": 2345,
                  "downtime_ns": 640_000_000, "engine": "io_uring", "staged_roots": { "memory": memory, "disk0": disk },
                  "phases_ms": { "build": 505, "copy": 1300 } },
            ],
        } }),
    ]
}

pub(crate) fn accepted() -> Answer {
    Answer::Json(
        202,
        json!({ "attempt_id": ATTEMPT, "instance_id": INSTANCE, "node_id": "d0".repeat(32), "targets": ["demo-2"] }),
    )
}

pub(crate) fn events_path() -> String {
    format!("/api/v1/attempts/{ATTEMPT}/events")
}

/// A node that accepts a commit and answers for its events as told.
pub(crate) fn node(events: impl Fn(usize) -> Option<Answer> + Send + Sync + 'static) -> FakeNode {
    FakeNode::start(move |request: &Request, before| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/api/v1/commit") => Some(accepted()),
        ("GET", path) if path == events_path() => events(before),
        _ => None,
    })
}

pub(crate) fn commit(node: &FakeNode, words: &[&str]) -> Ran {
    form(&[&["manage", "commit", "-n", "demo-1", "-m", JUNK, "--node", &node.url][..], words].concat())
}

pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn phases_are_lines_and_the_end_is_a_summary() {
    let node = node(|_| Some(Answer::Events(good())));
    let ran = commit(&node, &[]);
    assert_eq!(ran.code, 0);
    assert_data_eq!(
        ran.stderr,
        str![[r#"
committing demo-1 to demo-2
   0.000 s  demo-1: preflight
   0.812 s  demo-1: pause
            commit 5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed
   1.007 s  demo-1: stage
            demo-2: send, 3.0 MiB
   1.512 s  demo-2: ready
            committed: it is final
            settled: everyone has acknowledged

"#]]
    );
    assert_data_eq!(
        ran.stdout,
        str![[r#"
committed and settled: 5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed
its parent is 4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead

demo-1 was paused for 84.1 ms; meanwhile 17.0 MiB were read and 3.0 MiB written
its pause: stop 2.0 ms, device state 11.0 ms, copy 70.0 ms, cont 1.1 ms
its images have 943.0 MiB allocated: RAM 212.0 MiB, disk 731.0 MiB
4.20 s from the request to the last acknowledgement

target     sent  of RAM + disk  datagrams  downtime  engine    staged = captured
demo-2  3.1 MiB         0.33 %       2345  640.0 ms  io_uring  yes (2 of 2 images)

image      length  changed  encoded  recipes
memory  512.0 MiB  9.0 MiB  2.0 MiB  keep 648 B, copy 600 B, raw 4.0 KiB,
                                     zstd 2.0 MiB, zstd_prefix 9.8 KiB
disk0     2.0 GiB  3.0 MiB  1.0 MiB  -

phase      demo-1   demo-2
preflight   12 ms      -
pause      120 ms      -
build         -     505 ms
copy          -    1.30 s

"#]]
    );
}

#[test]
fn a_summary_fits_into_a_hundred_columns() {
    let mut events = good();
    let large = 999 << 20;
    let recipes =
        json!({ "copy": large, "keep": large, "raw": large, "zero": large, "zstd": large, "zstd_prefix": large });
    events[8]["summary"]["artifacts"][0]["recipes"] = recipes;
    let node = node(move |_| Some(Answer::Events(events.clone())));
    let ran = commit(&node, &[]);
    let widths = ran.stdout.lines().map(|line| line.chars().count());
    assert!(widths.max().is_some_and(|widest| (80..=100).contains(&widest)), "{}", ran.stdout);
}

#[test]
fn the_request_is_signed_for_ids_and_names_its_parent() {
    let node = node(|_| Some(Answer::Events(good())));
    assert_eq!(commit(&node, &["--description", "new kernel", "--timeout", "60"]).code, 0);
    let requests = node.requests("POST", "/api/v1/commit");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].signer(CLUSTER, INSTANCE).to_string(), "f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    let body = json!({ "id": INSTANCE, "description": "new kernel", "timeout_s": 60, "parent": HEAD });
    assert_eq!(requests[0].json(), body);
}

#[test]
fn targets_by_name_or_id_are_sent_as_ids() {
    let (second, third) = ("02".repeat(20), "03".repeat(20));
    let ids = [("demo-2".to_owned(), second.clone()), ("demo-3".into(), third.clone()), (third.clone(), third.clone())];
    let node = FakeNode::start(move |request, _| match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/api/v1/commit") => Some(accepted()),
        ("GET", path) if path == events_path() => Some(Answer::Events(good())),
        ("GET", "/api/v1/instances/web") => {
            let mut stranger = instance();
            (stranger["name"], stranger["instance_id"]) = (json!("web"), json!("04".repeat(20)));
            stranger["cluster_id"] = json!("ee".repeat(20));
            Some(Answer::Json(200, stranger))
        }
        ("GET", path) => {
            let asked = path.strip_prefix("/api/v1/instances/")?;
            let mut target = instance();
            target["instance_id"] = json!(ids.iter().find(|(name, _)| name == asked)?.1);
            Some(Answer::Json(200, target))
        }
        _ => None,
    });
    assert_eq!(commit(&node, &["--targets", &format!("demo-3,{third}"), "--targets", "demo-2"]).code, 0);
    let body = node.requests("POST", "/api/v1/commit").remove(0).json();
    assert_eq!(body, json!({ "id": INSTANCE, "targets": [third, second], "parent": HEAD }));

    for (target, code, error) in [
        ("demo-1", 2, "error: demo-1 is no target of a commit of demo-1\nfix: leave it out of --targets\n"),
        ("web", 2, "error: web is not in the cluster of demo-1\nfix: `form manage status` shows the clusters\n"),
        ("demo-9", 3, "error: no such thing\n"),
    ] {
        let ran = commit(&node, &["--targets", target]);
        assert_eq!((ran.code, ran.stderr.as_str()), (code, error));
    }
    assert_eq!(node.requests("POST", "/api/v1/commit").len(), 1, "what is wrong is found before anything is asked for");
}

#[test]
fn as_json_each_event_is_a_line() {
    let node = node(|_| Some(Answer::Events(good())));
    let ran = commit(&node, &["--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let mut expected = vec![json!({
        "type": "accepted", "attempt_id": ATTEMPT, "instance_id": INSTANCE, "node_id": "d0".repeat(32),
        "targets": ["demo-2"],
    })];
    expected.extend(good());
    assert_eq!(lines(&ran.stdout), expected);
}

#[test]
fn a_broken_stream_is_taken_up_again_and_nothing_is_shown_twice() {
    let node = node(|before| match before {
        0 => Some(Answer::Broken(good()[..3].to_vec())),
        1 => Some(Answer::Broken(good()[..1].to_vec())),
        2 => Some(Answer::Events(good()[..5].to_vec())),
        _ => Some(Answer::Events(good())),
    });
    let ran = commit(&node, &["--json"]);
    assert_eq!(ran.code, 0);
    assert_eq!(lines(&ran.stdout)[1..], good());
    assert_eq!(lines(&ran.stderr).len(), 2, "one remark for each connection that brought news and broke");
    assert_eq!(node.requests("GET", &events_path()).len(), 4);
}

#[test]
fn a_summary_that_lost_its_images_says_so() {
    let node = node(|_| {
        let mut events = good();
        events[8]["summary"]["targets"][0]["staged_roots"]["disk0"] = json!("cc".repeat(32));
        Some(Answer::Events(events))
    });
    let ran = commit(&node, &[]);
    assert!(ran.stdout.contains("NO (1 of 2 images)"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("demo-2 did not show that it staged what was captured: disk0\n"), "{}", ran.stdout);
}

#[test]
fn a_commit_that_was_undone_fails_with_its_reason() {
    let error = json!({ "code": "target_unavailable", "message": "demo-2 is down", "cause": "no answer", "remedy": "start its node" });
    let events = vec![
        phase(None, "preflight", 0),
        json!({ "type": "failed", "error": error }),
        json!({ "type": "settled", "summary": null }),
    ];
    let node = node(move |_| Some(Answer::Events(events.clone())));
    assert_data_eq!(
        commit(&node, &[]).to_string(),
        str![[r#"
exit 7
committing demo-1 to demo-2
   0.000 s  demo-1: preflight
            failed: demo-2 is down
            settled: everyone has acknowledged
error: demo-2 is down
cause: no answer
fix: start its node

"#]]
    );
    let ran = commit(&node, &["--json"]);
    assert_eq!((ran.code, lines(&ran.stdout).len()), (7, 4));
    assert_eq!(lines(&ran.stderr), [error]);
}

#[test]
fn a_node_that_was_started_anew_still_knows_the_outcome() {
    for (outcome, code) in [("committed", 0), ("aborted", 8)] {
        let node = FakeNode::start(move |request, before| match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/api/v1/commit") => Some(accepted()),
            ("GET", path) if path == events_path() => (before == 0).then(|| Answer::Broken(good()[..2].to_vec())),
            ("GET", path) if path == format!("/api/v1/attempts/{ATTEMPT}") => Some(Answer::Json(
                200,
                json!({ "attempt_id": ATTEMPT, "instance_id": INSTANCE, "outcome": outcome, "settled": true,
                        "last_event": null, "waits_for": [] }),
            )),
            _ => None,
        });
        let ran = commit(&node, &["--json"]);
        assert_eq!(ran.code, code);
        assert_eq!(lines(&ran.stdout).last().unwrap(), &json!({ "type": "settled", "summary": null }));
    }
}

#[test]
fn refusals_have_an_exit_code_for_each_kind() {
    for (code, exit) in [
        ("bad_request", 2),
        ("bad_key", 2),
        ("not_found", 3),
        ("not_allowed", 4),
        ("stale_request", 4),
        ("replayed_request", 4),
        ("conflict", 5),
        ("wrong_state", 6),
        ("target_unavailable", 7),
        ("target_unfit", 7),
        ("aborted", 8),
        ("unavailable", 9),
        ("missing_dependency", 10),
        ("unsupported", 2),
        ("internal", 70),
    ] {
        let error = json!({ "code": code, "message": "no", "cause": "why", "remedy": "what" });
        let answer = error.clone();
        let node = FakeNode::start(move |request, _| {
            (request.path == "/api/v1/commit").then(|| Answer::Json(409, answer.clone()))
        });
        let ran = commit(&node, &["--json"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (exit, ""), "{code}");
        assert_eq!(lines(&ran.stderr), [error]);
    }
}

#[test]
fn ctrl_c_ends_the_showing_and_says_where_to_look() {
    let node = node(|_| Some(Answer::Open(good()[..2].to_vec())));
    let words = ["manage", "commit", "-n", "demo-1", "-m", JUNK, "--node", &node.url, "--json"];
    let mut child = crate::run::command(&words).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // The events have begun, so it is listening for Ctrl-C.
    for _ in 0..2 {
        stdout.read_line(&mut String::new()).unwrap();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let look = format!("form manage status --id {INSTANCE} --node {}", node.url);
    assert!(stderr.contains("the commit goes on at the node") && stderr.contains(&look), "{stderr}");
}
