//! An outcome that somebody does not acknowledge: the command says so and ends. Each test waits as long as a user would.

use crate::commit::{NEW, commit, lines, node, phase};
use crate::fake_node::Answer;
use crate::run::Ran;
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};

/// As text and as JSON, at once: both wait.
fn both(events: Vec<Value>) -> (Ran, Ran) {
    let node = node(move |_| Some(Answer::Open(events.clone())));
    std::thread::scope(|scope| {
        let text = scope.spawn(|| commit(&node, &[]));
        let json = commit(&node, &["--json"]);
        (text.join().unwrap(), json)
    })
}

#[test]
fn a_commit_that_a_target_does_not_acknowledge_is_committed_and_not_settled() {
    let committed = json!({ "type": "committed", "snapshot_id": NEW });
    let (text, json) = both(vec![
        phase(Some("demo-2"), "active", 7),
        committed,
        phase(None, "finalize", 8),
        phase(Some("demo-1"), "settled", 9),
    ]);
    assert_data_eq!(
        text.to_string(),
        str![[r#"
exit 0
committed; not settled yet: demo-2 has not acknowledged (its node finishes it when it is back)
committing demo-1 to demo-2
   0.007 s  demo-2: active
            committed: it is final
   0.008 s  demo-1: finalize
   0.009 s  demo-1: settled
committed; waiting up to 15 s for demo-2 to acknowledge

"#]]
    );
    assert_eq!(json.code, 0);
    let last = lines(&json.stdout).pop().unwrap();
    assert_eq!(last, json!({ "type": "unsettled", "outcome": "committed", "missing": ["demo-2"] }));
}

#[test]
fn a_failure_that_nobody_acknowledges_ends_with_its_own_code() {
    let error = json!({ "code": "target_unavailable", "message": "demo-2 is down", "remedy": "start its node" });
    let (text, json) = both(vec![json!({ "type": "failed", "error": error }), phase(None, "undo", 9)]);
    assert_data_eq!(
        text.to_string(),
        str![[r#"
exit 7
committing demo-1 to demo-2
            failed: demo-2 is down
   0.009 s  demo-1: undo
failed; waiting up to 15 s for demo-1 and demo-2 to acknowledge
not settled yet: no acknowledgement from demo-1 and demo-2 (their nodes undo it when they are back)
error: demo-2 is down
fix: start its node

"#]]
    );
    assert_eq!(json.code, 7);
    let last = lines(&json.stdout).pop().unwrap();
    assert_eq!(last, json!({ "type": "unsettled", "outcome": "failed", "missing": ["demo-1", "demo-2"] }));
    assert_eq!(lines(&json.stderr).pop().unwrap(), error);
}

#[test]
fn a_coordinator_that_is_gone_after_the_outcome_is_not_waited_for_either() {
    let committed = json!({ "type": "committed", "snapshot_id": NEW });
    // Its node can't be reached any more, or runs and does not know the attempt.
    let [unreachable, forgetful] = [true, false].map(|breaks| {
        let committed = committed.clone();
        node(move |before| match before {
            0 => Some(Answer::Broken(vec![committed.clone()])),
            _ => breaks.then(|| Answer::Broken(vec![])),
        })
    });
    let ends = std::thread::scope(|scope| {
        let first = scope.spawn(|| commit(&unreachable, &["--json"]));
        let second = commit(&forgetful, &["--json"]);
        [first.join().unwrap(), second]
    });
    for ran in ends {
        assert_eq!(ran.code, 0);
        let last = lines(&ran.stdout).pop().unwrap();
        assert_eq!(last, json!({ "type": "unsettled", "outcome": "committed", "missing": ["demo-1", "demo-2"] }));
    }
}

#[test]
fn a_commit_counts_even_if_something_failed_on_the_way() {
    let error = json!({ "code": "target_unavailable", "message": "demo-2 was not reached at first" });
    let events = vec![
        json!({ "type": "failed", "error": error }),
        json!({ "type": "committed", "snapshot_id": NEW }),
        json!({ "type": "settled", "summary": null }),
    ];
    let node = node(move |_| Some(Answer::Events(events.clone())));
    let ran = commit(&node, &[]);
    assert_eq!(ran.code, 0);
    assert_eq!(ran.stdout, "committed and settled; the node was restarted and has no figures of it\n");
}
