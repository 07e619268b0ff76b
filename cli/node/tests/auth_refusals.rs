//! What the check refuses, and with which code.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should stop")]

use form_node::ErrorCode;
use form_node::auth::{
    Expected, Level, NOTHING, REQUEST_AGE_MS_MAX, RequestMessage, SignedRequest, SigningKey, authorise, check_again,
    check_entry, held_level, recover, sign,
};
use sha2::{Digest, Sha256};

const NOW_MS: u64 = 1_795_000_000_000;
const BODY: &[u8] = br#"{"name":"demo-1"}"#;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32]).unwrap()
}

fn message() -> RequestMessage {
    RequestMessage {
        installation: "a1".repeat(16),
        cluster: "b2".repeat(20),
        instance: "c3".repeat(20),
        method: "POST".into(),
        path: "/api/v1/commit".into(),
        body_sha256: Sha256::digest(BODY).into(),
        time_ms: NOW_MS,
        nonce: [7; 16],
    }
}

fn entry(
    request: &SignedRequest,
    change: impl FnOnce(&mut Expected<'_>),
    body: &[u8],
    now_ms: u64,
) -> Result<(), ErrorCode> {
    let (installation, cluster, instance) = ("a1".repeat(16), "b2".repeat(20), "c3".repeat(20));
    let mut expected = Expected {
        installation: &installation,
        cluster: &cluster,
        instance: &instance,
        method: "POST",
        path: "/api/v1/commit",
    };
    change(&mut expected);
    check_entry(request, &expected, body, now_ms).map(drop).map_err(|error| error.code)
}

#[test]
fn a_request_passes_for_what_was_signed_and_for_nothing_else() {
    let request = sign(&key(1), &message());
    assert_eq!(entry(&request, |_| (), BODY, NOW_MS), Ok(()));
    assert_eq!(entry(&request, |e| e.path = "/v1/commit", BODY, NOW_MS), Ok(()));

    let refused = Err(ErrorCode::NotAllowed);
    assert_eq!(entry(&request, |e| e.installation = "other", BODY, NOW_MS), refused);
    assert_eq!(entry(&request, |e| e.cluster = NOTHING, BODY, NOW_MS), refused);
    assert_eq!(entry(&request, |e| e.instance = NOTHING, BODY, NOW_MS), refused);
    assert_eq!(entry(&request, |e| e.method = "DELETE", BODY, NOW_MS), refused);
    assert_eq!(entry(&request, |e| e.path = "/api/v1/commit?force=1", BODY, NOW_MS), refused);
    assert_eq!(entry(&request, |_| (), b"{}", NOW_MS), refused);
}

#[test]
fn a_request_lives_one_minute_either_way() {
    let request = sign(&key(1), &message());
    for (now_ms, answer) in [
        (NOW_MS - REQUEST_AGE_MS_MAX, Ok(())),
        (NOW_MS + REQUEST_AGE_MS_MAX, Ok(())),
        (NOW_MS - REQUEST_AGE_MS_MAX - 1, Err(ErrorCode::StaleRequest)),
        (NOW_MS + REQUEST_AGE_MS_MAX + 1, Err(ErrorCode::StaleRequest)),
        (u64::MAX, Err(ErrorCode::StaleRequest)),
    ] {
        assert_eq!(entry(&request, |_| (), BODY, now_ms), answer);
    }
}

#[test]
fn a_later_check_needs_no_body() {
    let message = message();
    let request = sign(&key(1), &message);
    let expected = Expected {
        installation: &message.installation,
        cluster: &message.cluster,
        instance: &message.instance,
        method: "POST",
        path: "/api/v1/commit",
    };
    let recovered = check_again(&request, &expected, NOW_MS + 1).unwrap();
    assert_eq!(recovered.message().body_sha256, message.body_sha256);
}

#[test]
fn zero_and_out_of_range_signatures_are_refused() {
    let good = sign(&key(1), &message());
    let mut bad = vec![];
    for half in [0..32, 32..64] {
        for byte in [0x00, 0xff] {
            let mut request = good.clone();
            request.signature[half.clone()].fill(byte);
            bad.push(request);
        }
    }
    bad.extend([2, 3, 27, 255].map(|recovery_id| SignedRequest { recovery_id, ..good.clone() }));
    assert_eq!(bad.len(), 8);
    for request in bad {
        assert_eq!(recover(&request).unwrap_err().code, ErrorCode::BadKey);
    }
}

#[test]
fn a_message_has_one_spelling() {
    let text = String::from_utf8(message().to_bytes()).unwrap();
    assert_eq!(RequestMessage::parse(text.as_bytes()).unwrap(), message());
    let hash = hex::encode(message().body_sha256);
    for (what, other) in [
        ("newline at the end", format!("{text}\n")),
        ("carriage returns", text.replace('\n', "\r\n")),
        ("another tag", text.replace("form-request-v1", "form-request-v2")),
        ("capital hex", text.replace(&hash, &hash.to_uppercase())),
        ("leading zero", text.replace("1795000000000", "01795000000000")),
        ("plus sign", text.replace("1795000000000", "+1795000000000")),
        ("two spaces", text.replacen(' ', "  ", 1)),
        ("short alias of the path", text.replace("/api/v1/", "/v1/")),
        ("no path", text.replace("/api/v1/commit", "")),
        ("lower case method", text.replace("POST", "post")),
        ("id in capitals", text.replacen("c3", "C3", 1)),
        ("a line less", text.replacen('\n', " ", 1)),
        ("too long", text.replace("/api/v1/commit", &format!("/api/v1/{}", "x".repeat(4096)))),
        ("nothing", String::new()),
    ] {
        assert_ne!(text, other, "{what}");
        let error = RequestMessage::parse(other.as_bytes()).expect_err(what);
        assert_eq!(error.code, ErrorCode::BadRequest, "{what}");
    }
    assert!(RequestMessage::parse(&[0xff; 200]).is_err());
}

#[test]
fn rights_come_from_ownership_and_grants() {
    let (owner, manager, stranger) = (key(1).address(), key(2).address(), key(3).address());
    let grants = [(manager, Level::ReadOnly), (manager, Level::Manager), (stranger, Level::Operator)];
    assert_eq!(held_level(owner, owner, []), Some(Level::Owner));
    assert_eq!(held_level(owner, manager, grants), Some(Level::Manager));
    assert_eq!(held_level(owner, stranger, grants), Some(Level::Operator));
    assert_eq!(held_level(owner, stranger, []), None);
    assert_eq!(held_level(owner, stranger, [(stranger, Level::Owner)]), Some(Level::Manager));

    let recovered = recover(&sign(&key(2), &message())).unwrap();
    assert_eq!(recovered.signer(), manager);
    let levels = [None, Some(Level::ReadOnly), Some(Level::Operator), Some(Level::Manager), Some(Level::Owner)];
    let allowed = levels.map(|held| authorise(&recovered, Level::Manager, held).is_ok());
    assert_eq!(allowed, [false, false, false, true, true]);
    let proof = authorise(&recovered, Level::Manager, Some(Level::Manager)).unwrap();
    assert_eq!((proof.signer(), proof.time_ms()), (manager, NOW_MS));
    assert_eq!(proof.request_hash(), <[u8; 32]>::from(Sha256::digest(message().to_bytes())));
}

#[test]
fn a_key_is_32_good_bytes_and_stays_secret() {
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let good = "11".repeat(32);
    assert!(SigningKey::from_hex(&good).is_ok());
    assert!(SigningKey::from_hex(&format!("0x{good}")).is_ok());
    let (zero, short, wrong) = ("00".repeat(32), "11".repeat(31), "1g".repeat(32));
    for text in [zero.as_str(), order, &short, &wrong, "", &"ü".repeat(32)] {
        let error = SigningKey::from_hex(text).unwrap_err();
        assert_eq!(error.code, ErrorCode::BadKey);
        assert!(text.is_empty() || !error.message.contains(text), "the text may be a secret");
    }
    assert!(!format!("{:?}", key(0x11)).contains("1111"));
}
