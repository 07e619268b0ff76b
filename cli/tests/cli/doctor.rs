//! `form node doctor`: what it says, and its exit code.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};

use crate::fake_node::{Answer, FakeNode};
use crate::node_process::{Running, addresses, init};
use crate::run::form;

#[test]
fn each_finding_has_its_remedy_and_a_problem_is_an_exit_code() {
    let findings = json!([
        { "check": "store", "verdict": "ok", "message": "answers and takes writes" },
        { "check": "writing", "verdict": "note", "message": "io_uring can't be used", "remedy": "allow it" },
        { "check": "instances", "verdict": "problem", "message": "web-1 should run, and its VM is gone",
          "remedy": "form manage start --name web-1" },
    ]);
    let node = FakeNode::start(move |request, _| {
        let view = json!({ "node_id": "d0", "running": true, "healthy": false, "findings": findings });
        (request.path == "/api/v1/health").then(|| Answer::Json(200, view))
    });
    assert_data_eq!(
        form(&["node", "doctor", "--node", &node.url]).to_string(),
        str![[r#"
exit 11
ok       store      answers and takes writes
note     writing    io_uring can't be used
                    fix: allow it
PROBLEM  instances  web-1 should run, and its VM is gone
                    fix: form manage start --name web-1
1 problem

"#]]
    );
    let json = form(&["node", "doctor", "--json", "--node", &node.url]);
    let shown: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &shown["healthy"]), (11, &json!(false)));
}

#[test]
fn a_data_directory_whose_node_runs_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let (api, quic) = addresses();
    assert_eq!(init(dir.path(), &data, api.local_addr().unwrap(), quic.local_addr().unwrap()).code, 0);
    drop((api, quic));
    let doctor = || form(&["node", "doctor", "--verify", "--data", data.to_str().unwrap()]);
    let new = doctor();
    assert_eq!((new.code, new.stdout.lines().last()), (0, Some("healthy")), "{new}");
    assert!(new.stdout.contains("the node does not run, and never did"), "{new}");

    let running = Running::start(&data);
    let well = doctor();
    assert_eq!((well.code, well.stdout.lines().last()), (0, Some("healthy")), "{well}");
    // From outside who runs it, from the node itself how its peers are; nothing twice.
    assert!(well.stdout.contains(&format!("process {} runs the node", running.child.id())), "{well}");
    assert!(well.stdout.contains("0 others answer"), "{well}");
    assert_eq!(well.stdout.matches("  store  ").count(), 1, "{well}");
    assert_eq!(running.end(Signal::TERM).0, Some(0));

    std::fs::set_permissions(data.join("node.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let open = doctor();
    assert_eq!((open.code, open.stdout.lines().last()), (11, Some("1 problem")), "{open}");
    std::fs::remove_file(data.join("node.toml")).unwrap();
    let nothing = doctor();
    assert_eq!(nothing.code, 11, "{nothing}");
    assert!(nothing.stdout.contains("fix: make the node first: form node init"), "{nothing}");
}

#[test]
fn reading_all_needs_a_directory() {
    assert_eq!(form(&["node", "doctor", "--verify"]).code, 2);
    let gone = form(&["node", "doctor", "--node", "http://127.0.0.1:1"]);
    assert_eq!(gone.code, 9, "a node that can't be asked is no diagnosis: {gone}");
}
