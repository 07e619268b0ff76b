//! A signed request keeps its bytes: in borsh between nodes, in headers and JSON elsewhere.

use form_node::auth::SignedRequest;

fn request() -> SignedRequest {
    SignedRequest { message: b"hi".to_vec(), signature: std::array::from_fn(|n| n as u8), recovery_id: 1 }
}

#[test]
fn golden_borsh() {
    let golden = format!("02000000{}{}01", hex::encode("hi"), hex::encode(request().signature));
    assert_eq!(hex::encode(borsh::to_vec(&request()).unwrap()), golden);
    assert_eq!(borsh::from_slice::<SignedRequest>(&hex::decode(golden).unwrap()).unwrap(), request());
}

#[test]
fn golden_json_and_headers() {
    let signature = hex::encode(request().signature);
    let json = format!(r#"{{"message":"6869","signature":"{signature}","recovery_id":1}}"#);
    assert_eq!(serde_json::to_string(&request()).unwrap(), json);
    assert_eq!(serde_json::from_str::<SignedRequest>(&json).unwrap(), request());

    let headers = request().to_headers();
    assert_eq!(headers[0], ("x-message", "6869".to_owned()));
    assert_eq!(headers[1], ("x-signature", signature));
    assert_eq!(headers[2], ("x-recovery-id", "1".to_owned()));
    assert_eq!(SignedRequest::from_headers(&headers[0].1, &headers[1].1, &headers[2].1), Ok(request()));
    for (message, signature, recovery_id) in [
        ("68g9", &headers[1].1[..], "1"),
        ("6869", "00", "1"),
        ("6869", &headers[1].1, "2"),
        ("6869", &headers[1].1, "01"),
    ] {
        assert!(SignedRequest::from_headers(message, signature, recovery_id).is_err());
    }
}
