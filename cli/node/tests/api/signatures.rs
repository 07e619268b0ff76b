//! Signed requests: what passes, and what each way of tampering gets.

use form_node::api::signed_body;
use form_node::api::types::CommitVmRequest;
use form_node::auth::{REQUEST_AGE_MS_MAX, SignedRequest, recover, sign};
use sha2::{Digest, Sha256};

use crate::client::{Call, call, message, now_ms};
use crate::fake::{ATTEMPT, Nodes, id, key, nodes, owner};

const COMMIT: &str = r#"{"name":"vm-1","description":"d"}"#;

fn commit() -> Call {
    call("POST", "/api/v1/commit", COMMIT)
}

async fn refused(nodes: &Nodes, call: Call) -> (u16, String) {
    let error = call.send(nodes.addrs[0]).await.error();
    assert_eq!(nodes.nodes[0].calls(), [""; 0], "nothing is done");
    error
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.into())
}

#[tokio::test]
async fn a_commit_is_accepted_on_both_paths() {
    let nodes = nodes(1).await;
    for path in ["/api/v1/commit", "/v1/commit"] {
        for body in [COMMIT.to_owned(), COMMIT.replace(r#""name":"vm-1""#, &format!(r#""id":"0x{}""#, id(1)))] {
            let reply = call("POST", path, &body).signed(&nodes, &key(1), Some(1)).send(nodes.addrs[0]).await;
            assert_eq!(reply.status, 202, "{:?}", reply.body);
            assert_eq!(reply.json()["attempt_id"], ATTEMPT);
            assert_eq!(nodes.nodes[0].calls(), [format!("commit {} by {}: d", id(1), owner())]);
        }
    }
}

#[tokio::test]
async fn a_request_that_is_not_signed_is_refused() {
    let nodes = nodes(1).await;
    assert_eq!(refused(&nodes, commit()).await, is(403, "not_allowed"));
    let signed = commit().signed(&nodes, &key(1), Some(1));
    for missing in 0..3 {
        let mut call = signed.clone();
        call.headers.remove(missing);
        assert_eq!(refused(&nodes, call).await, is(403, "not_allowed"));
    }
    let mut twice = signed;
    twice.headers.push(twice.headers[0].clone());
    assert_eq!(refused(&nodes, twice).await, is(400, "bad_request"));
}

#[tokio::test]
async fn old_and_future_requests_are_stale() {
    let nodes = nodes(1).await;
    for time_ms in [now_ms() - REQUEST_AGE_MS_MAX - 5_000, now_ms() + REQUEST_AGE_MS_MAX + 60_000] {
        let mut message = message(&nodes, &commit(), Some(1));
        message.time_ms = time_ms;
        let call = commit().signed_with(&key(1), &message);
        assert_eq!(refused(&nodes, call).await, is(403, "stale_request"));
    }
}

#[tokio::test]
async fn what_was_signed_is_what_is_done() {
    let nodes = nodes(2).await;
    let good = || commit().signed(&nodes, &key(1), Some(1));

    let mut body = good();
    body.body = COMMIT.replace(r#""d""#, r#""e""#).into();
    assert_eq!(refused(&nodes, body).await, is(403, "not_allowed"), "another description");
    let mut body = good();
    body.body.push(b' ');
    assert_eq!(refused(&nodes, body).await, is(403, "not_allowed"), "one blank more");
    let mut query = good();
    query.path.push_str("?force=1");
    assert_eq!(refused(&nodes, query).await, is(403, "not_allowed"));
    let mut other = good();
    other.path = "/api/v1/instances/vm-1/start".into();
    assert_eq!(refused(&nodes, other).await, is(403, "not_allowed"), "another route");
    // A grant is given and taken back with the same body: the method is what differs.
    let grant =
        format!(r#"{{"address":"{}","instance_id":"{}","level":"Manager","version":1}}"#, key(2).address(), id(1));
    let mut method = call("POST", "/api/v1/accounts/grants", &grant).signed(&nodes, &key(1), Some(1));
    method.method = "DELETE";
    assert_eq!(refused(&nodes, method).await, is(403, "not_allowed"));

    let mut wrong = vec![message(&nodes, &commit(), Some(2)), message(&nodes, &commit(), None)];
    wrong.push(message(&nodes, &commit(), Some(1)));
    wrong[2].installation = "0".repeat(32);
    for message in wrong {
        let call = commit().signed_with(&key(1), &message);
        assert_eq!(refused(&nodes, call).await, is(403, "not_allowed"), "{message:?}");
    }
}

#[tokio::test]
async fn another_key_may_not() {
    let nodes = nodes(1).await;
    assert_eq!(refused(&nodes, commit().signed(&nodes, &key(2), Some(1))).await, is(403, "not_allowed"));
    // The owner's signature with the other recovery id names somebody else.
    let call = commit().signed(&nodes, &key(1), Some(1));
    let id = call.headers.iter().find(|(name, _)| *name == "x-recovery-id").expect("there").1.clone();
    let flipped = call.header("x-recovery-id", if id == "0" { "1" } else { "0" });
    assert_eq!(refused(&nodes, flipped).await.0 / 100, 4);
}

#[tokio::test]
async fn malformed_signatures_are_bad_keys() {
    let nodes = nodes(1).await;
    let message = message(&nodes, &commit(), Some(1));
    let signed = sign(&key(1), &message);
    recover(&signed).expect("as it is, it is good");
    let mut high = signed.clone();
    high.signature[32..].copy_from_slice(&negated(&signed.signature[32..]));
    high.recovery_id ^= 1;
    let mut zero_r = signed.clone();
    zero_r.signature[..32].fill(0);
    let mut zero_s = signed.clone();
    zero_s.signature[32..].fill(0);
    for (what, bad) in [("high s", high), ("r of 0", zero_r), ("s of 0", zero_s)] {
        let mut call = commit();
        call.headers.extend(SignedRequest::to_headers(&bad));
        assert_eq!(refused(&nodes, call).await, is(400, "bad_key"), "{what}");
    }
    let good = commit().signed_with(&key(1), &message);
    for (name, value, code) in [
        ("x-signature", "abcd", "bad_key"),
        ("x-signature", "not hex", "bad_key"),
        ("x-recovery-id", "2", "bad_key"),
        ("x-message", "zz", "bad_request"),
        ("x-message", "00", "bad_request"),
    ] {
        assert_eq!(refused(&nodes, good.clone().header(name, value)).await, is(400, code), "{name}: {value}");
    }
}

/// The order of secp256k1 minus `s`: the other valid s of an ECDSA signature.
fn negated(s: &[u8]) -> [u8; 32] {
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").expect("hex");
    let (mut out, mut borrow) = ([0; 32], 0);
    for i in (0..32).rev() {
        let difference = i16::from(order[i]) - i16::from(s[i]) - borrow;
        borrow = i16::from(difference < 0);
        out[i] = u8::try_from(difference.rem_euclid(256)).expect("a byte");
    }
    out
}

#[tokio::test]
async fn a_request_is_made_once() {
    let nodes = nodes(1).await;
    let start = call("POST", "/api/v1/instances/vm-1/start", "").signed(&nodes, &key(1), Some(1));
    assert_eq!(start.send(nodes.addrs[0]).await.status, 200);
    assert_eq!(nodes.nodes[0].calls(), [format!("start {}", id(1))]);
    assert_eq!(refused(&nodes, start.clone()).await, is(403, "replayed_request"));
    let mut other_path = start.clone();
    other_path.path = "/v1/instances/vm-1/start".into();
    assert_eq!(refused(&nodes, other_path).await, is(403, "replayed_request"), "the other path is the same request");
    // A commit goes to the node again: it answers with the attempt that the request began.
    let commit = commit().signed(&nodes, &key(1), Some(1));
    for _ in 0..2 {
        assert_eq!(commit.send(nodes.addrs[0]).await.status, 202);
        assert_eq!(nodes.nodes[0].calls().len(), 1);
    }
}

/// A commit with its signature in the body.
fn in_body(nodes: &Nodes, signer: u8, address: u8) -> Call {
    let mut request =
        CommitVmRequest { name: Some("vm-1".into()), description: Some("d".into()), ..CommitVmRequest::default() };
    let mut message = message(nodes, &commit(), Some(1));
    message.body_sha256 = Sha256::digest(signed_body(&request)).into();
    let signed = sign(&key(signer), &message);
    request.signature = Some(format!("{}{:02x}", hex::encode(signed.signature), signed.recovery_id));
    request.address = Some(key(address).address().to_string());
    let body = serde_json::to_string_pretty(&request).expect("json");
    call("POST", "/api/v1/commit", &body).header("x-message", &hex::encode(&signed.message))
}

#[tokio::test]
async fn the_body_is_a_second_carrier() {
    let nodes = nodes(1).await;
    assert_eq!(in_body(&nodes, 1, 1).send(nodes.addrs[0]).await.status, 202);
    assert_eq!(nodes.nodes[0].calls(), [format!("commit {} by {}: d", id(1), owner())]);
    assert_eq!(refused(&nodes, in_body(&nodes, 1, 2)).await, is(403, "not_allowed"), "somebody else's address");
    assert_eq!(refused(&nodes, in_body(&nodes, 2, 1)).await, is(403, "not_allowed"), "somebody else's signature");

    let both = in_body(&nodes, 1, 1).signed(&nodes, &key(1), Some(1));
    assert_eq!(refused(&nodes, both).await, is(400, "bad_request"), "both carriers at once");
    let mut no_message = in_body(&nodes, 1, 1);
    no_message.headers.clear();
    assert_eq!(refused(&nodes, no_message).await, is(403, "not_allowed"));
    let half = call("POST", "/api/v1/commit", r#"{"name":"vm-1","address":"00"}"#);
    assert_eq!(refused(&nodes, half).await, is(400, "bad_request"));
    let mut tampered = in_body(&nodes, 1, 1);
    tampered.body = String::from_utf8(tampered.body).expect("text").replace(r#""d""#, r#""e""#).into();
    assert_eq!(refused(&nodes, tampered).await, is(403, "not_allowed"));
}
