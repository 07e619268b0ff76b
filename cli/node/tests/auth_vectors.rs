//! Addresses and signatures beside those of an independent implementation (vectors/make.py).

#![expect(clippy::unwrap_used, reason = "a test that can't go on should stop")]

use form_node::ErrorCode;
use form_node::auth::{Address, Expected, RequestMessage, SignedRequest, SigningKey, check_entry, recover, sign};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Vector {
    private_key: String,
    address: Address,
    installation: String,
    cluster: String,
    instance: String,
    method: String,
    path: String,
    body: String,
    time_ms: u64,
    nonce: String,
    message: String,
    sha256: String,
    r: String,
    s: String,
    high_s: String,
    v: u8,
}

impl Vector {
    fn key(&self) -> SigningKey {
        SigningKey::from_hex(&self.private_key).unwrap()
    }

    fn request_message(&self) -> RequestMessage {
        RequestMessage {
            installation: self.installation.clone(),
            cluster: self.cluster.clone(),
            instance: self.instance.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            body_sha256: Sha256::digest(&self.body).into(),
            time_ms: self.time_ms,
            nonce: hex::decode(&self.nonce).unwrap().try_into().unwrap(),
        }
    }

    fn signed(&self, s: &str, v: u8) -> SignedRequest {
        SignedRequest {
            message: self.message.clone().into_bytes(),
            signature: hex::decode(format!("{}{s}", self.r)).unwrap().try_into().unwrap(),
            recovery_id: v,
        }
    }
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("vectors/signatures.json")).unwrap();
    assert_eq!(vectors.len(), 16);
    vectors
}

#[test]
fn addresses_messages_and_signatures_are_theirs() {
    for vector in vectors() {
        assert_eq!(vector.key().address(), vector.address);
        let message = vector.request_message();
        assert_eq!(String::from_utf8(message.to_bytes()).unwrap(), vector.message);
        let ours = sign(&vector.key(), &message);
        assert_eq!(hex::encode(ours.request_hash()), vector.sha256);
        assert_eq!(ours, vector.signed(&vector.s, vector.v));
    }
}

#[test]
fn their_signatures_pass_the_entry() {
    for vector in vectors() {
        let expected = Expected {
            installation: &vector.installation,
            cluster: &vector.cluster,
            instance: &vector.instance,
            method: &vector.method,
            path: &vector.path,
        };
        let request = vector.signed(&vector.s, vector.v);
        let recovered = check_entry(&request, &expected, vector.body.as_bytes(), vector.time_ms).unwrap();
        assert_eq!(recovered.signer(), vector.address);
        assert_eq!(recovered.message(), &vector.request_message());
    }
}

#[test]
fn the_other_spelling_of_a_signature_is_refused() {
    for vector in vectors() {
        // With high s and the other parity the same key comes out: the signature is malleable unless refused.
        let error = recover(&vector.signed(&vector.high_s, 1 - vector.v)).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadKey);
        assert_eq!(error.cause.as_deref(), Some("s is in the upper half of its range"));
        // The other parity alone is someone else, or nobody.
        let other = recover(&vector.signed(&vector.s, 1 - vector.v));
        assert!(other.is_err() || other.unwrap().signer() != vector.address);
    }
}
