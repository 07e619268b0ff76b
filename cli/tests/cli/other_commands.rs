//! The other commands against a node that says what it is told to: what they send, and what they show.

use crate::fake_node::{Answer, CLUSTER, FakeNode, INSTANCE, instance};
use crate::run::{form, form_with};
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};

const JUNK: &str = "test test test test test test test test test test test junk";
const SIGNER: &str = "f39fd6e51aad88f6f4ce6ab8827279cfffb92266";

fn answering(method: &'static str, path: &'static str, body: Value) -> FakeNode {
    FakeNode::start(move |request, _| {
        (request.method == method && request.path == path).then(|| Answer::Json(200, body.clone()))
    })
}

#[test]
fn node_status() {
    let node = FakeNode::start(|_, _| None);
    assert_data_eq!(
        form(&["node", "status", "--node", &node.url]).to_string(),
        str![[r#"
exit 0
node          d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0
version       0.1.0
installation  1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a
store         sqlite:/var/lib/form/state.db
API           127.0.0.1:3002
transport     127.0.0.1:3003
VMM           qemu 7.2.11, pc-i440fx-7.2, tcg, CPU qemu64
engine        io_uring
instances     1
free space    5.0 GiB

"#]]
    );
    let json = form(&["--json", "node", "status", "--node", &node.url]);
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap(), crate::fake_node::node());
}

#[test]
fn create_from_a_spec_concerns_nothing_yet() {
    let spec = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(spec.path(), "memory_mib = 512\n").unwrap();
    let created = json!({ "instance_id": INSTANCE, "cluster_id": CLUSTER });
    let node = answering("POST", "/api/v1/instances", created);
    let path = spec.path().to_str().unwrap();
    let ran = form(&["manage", "create", "-n", "demo-1", "--spec", path, "-m", JUNK, "--node", &node.url]);
    assert_data_eq!(
        ran.to_string(),
        str![[r#"
exit 0
created demo-1
instance  0101010101010101010101010101010101010101
cluster   c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1

"#]]
    );
    let requests = node.requests("POST", "/api/v1/instances");
    assert_eq!(requests[0].signer("-", "-").to_string(), SIGNER);
    assert_eq!(requests[0].json(), json!({ "name": "demo-1", "spec": "memory_mib = 512\n" }));
}

#[test]
fn create_like_another_is_signed_for_that_one() {
    let created = json!({ "instance_id": "02".repeat(20), "cluster_id": CLUSTER, "snapshot_id": crate::fake_node::HEAD,
                          "received_bytes": 900 << 20 });
    let node = answering("POST", "/api/v1/instances", created);
    let ran = form(&["manage", "create", "-n", "demo-2", "--like", "demo-1", "-m", JUNK, "--node", &node.url]);
    assert_data_eq!(
        ran.to_string(),
        str![[r#"
exit 0
created demo-2
instance  0202020202020202020202020202020202020202
cluster   c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1
commit    4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead, 900.0 MiB received

"#]]
    );
    let requests = node.requests("POST", "/api/v1/instances");
    assert_eq!(requests[0].signer(CLUSTER, INSTANCE).to_string(), SIGNER);
    assert_eq!(requests[0].json(), json!({ "name": "demo-2", "like": INSTANCE }));
}

#[test]
fn start_and_stop_are_signed_by_keys_from_everywhere() {
    let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    let stdin = format!("{key}\nnot for us\n");
    for (words, environment, input) in [
        (&["-p", key][..], &[][..], None),
        (&["-p", "-"], &[], Some(stdin.as_str())),
        (&[], &[("FORM_PRIVATE_KEY", key)], None),
        (&[], &[("FORM_MNEMONIC", JUNK)], None),
        (&["-m", JUNK], &[("FORM_PRIVATE_KEY", "ignored")], None),
    ] {
        for action in ["start", "stop"] {
            let path = format!("/api/v1/instances/{INSTANCE}/{action}");
            let node = FakeNode::start({
                let path = path.clone();
                move |request, _| (request.path == path).then(|| Answer::Json(200, instance()))
            });
            let command = [&["manage", action, "-n", "demo-1", "--node", &node.url][..], words].concat();
            assert_eq!(form_with(&command, environment, input).to_string(), "exit 0\ndemo-1: Started\n");
            assert_eq!(node.requests("POST", &path)[0].signer(CLUSTER, INSTANCE).to_string(), SIGNER);
        }
    }
}

#[test]
fn delete_is_signed_for_the_instance() {
    let path = format!("/api/v1/instances/{INSTANCE}");
    let node = FakeNode::start({
        let path = path.clone();
        move |request, _| (request.method == "DELETE" && request.path == path).then(|| Answer::Json(200, json!({})))
    });
    let words = ["manage", "delete", "-n", "demo-1", "-m", JUNK, "--node", &node.url];
    assert_eq!(form(&words).to_string(), "exit 0\ndeleted demo-1\n");
    assert_eq!(node.requests("DELETE", &path)[0].signer(CLUSTER, INSTANCE).to_string(), SIGNER);
    let json: Value = serde_json::from_str(&form(&[&words[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!(json, json!({ "deleted": "demo-1", "instance_id": INSTANCE }));
}

#[test]
fn grants_are_given_and_taken_back() {
    let node =
        FakeNode::start(|request, _| (request.path == "/api/v1/accounts/grants").then(|| Answer::Json(200, json!({}))));
    let friend = "70997970c51812dc3a010c7d01b50e0d17dc79c8";
    let with = ["--instance", "demo-1", "--address", &format!("0x{friend}"), "-m", JUNK, "--node", &node.url];
    let granted = form(&[&["account", "grant", "--level", "manager"][..], &with].concat());
    assert_eq!(granted.to_string(), format!("exit 0\n{friend} is manager on demo-1\n"));
    let revoked = form(&[&["account", "revoke"][..], &with].concat());
    assert_eq!(revoked.to_string(), format!("exit 0\n{friend} has no right on demo-1 any more\n"));
    for (method, level) in [("POST", json!("Manager")), ("DELETE", Value::Null)] {
        let request = node.requests(method, "/api/v1/accounts/grants").remove(0);
        assert_eq!(request.signer(CLUSTER, INSTANCE).to_string(), SIGNER);
        let body = request.json();
        assert_eq!(
            (&body["address"], &body["instance_id"], &body["level"]),
            (&json!(friend), &json!(INSTANCE), &level)
        );
        assert!(body["version"].as_u64().unwrap() > 1_700_000_000_000);
    }
}

#[test]
fn a_piped_console_sends_its_input_and_drains_the_output() {
    let path = format!("/api/v1/instances/{INSTANCE}/console");
    let node = FakeNode::start({
        let path = path.clone();
        move |request, _| (request.path == path).then_some(Answer::Console(b"login: "))
    });
    let words = ["manage", "console", "-n", "demo-1", "-m", "-", "--drain", "1", "--node", &node.url];
    // The key is the first line of stdin; the guest gets the rest.
    let ran = form_with(&words, &[], Some(&format!("{JUNK}\nroot\n")));
    assert_eq!(ran.to_string(), "exit 0\nlogin: root\n");
    let request = node.requests("GET", &path).remove(0);
    assert_eq!(request.signer(CLUSTER, INSTANCE).to_string(), SIGNER);
    assert_eq!(request.headers["upgrade"], "form-console");
}

#[test]
fn a_new_account_can_sign() {
    let made: Value = serde_json::from_str(&form(&["account", "new", "--json"]).stdout).unwrap();
    let node = answering("POST", "/api/v1/instances/x/start", json!({}));
    let mnemonic = made["mnemonic"].as_str().unwrap();
    // Not found, but signed well enough to get that far.
    let ran = form(&["manage", "start", "-n", "nobody", "-m", mnemonic, "--node", &node.url]);
    assert_eq!(ran.code, 3);
    assert_eq!(made["address"].as_str().unwrap().len(), 40);
}

#[test]
fn something_else_on_the_port_is_not_taken_for_a_node() {
    let node = FakeNode::start(|_, _| Some(Answer::Json(200, json!({ "hello": "world" }))));
    let ran = form(&["manage", "instances", "--node", &node.url]);
    assert_data_eq!(
        ran.to_string().replace(&node.url, "http://NODE"),
        str![[r#"
exit 70
error: the answer of http://NODE can't be understood
cause: invalid type: map, expected a sequence at line 1 column 0
fix: is it the URL of a node's API, and of this version? `form node status` shows the version

"#]]
    );
}
