//! Node keys: their file, their signatures, their names.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use form_transport::{Error, ErrorKind, NodeId, NodeKey, limits::KEY_FILE_BYTES_MAX, verify_signature};
use tempfile::TempDir;

/// RFC 8032, section 7.1, test 2.
const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
const SIGNATURE_OF_72: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                               085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

fn file(bytes: &[u8], mode: u32) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    (folder, path)
}

/// PKCS#8 v1, as `openssl genpkey -algorithm ED25519 -outform DER` writes it.
fn rfc8032_key() -> NodeKey {
    let der = hex::decode(format!("302e020100300506032b657004220420{SEED}")).unwrap();
    let (_folder, path) = file(&der, 0o600);
    NodeKey::load(&path).unwrap()
}

#[test]
fn signatures_agree_with_rfc_8032() {
    let key = rfc8032_key();
    assert_eq!(key.id().to_string(), PUBLIC);
    let signature = key.sign(&[0x72]);
    assert_eq!(hex::encode(signature), SIGNATURE_OF_72);
    verify_signature(key.id(), &[0x72], &signature).unwrap();

    let error = verify_signature(key.id(), &[0x73], &signature).unwrap_err();
    assert!(matches!(error, Error::BadSignature { signer } if signer == key.id()));
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let other = NodeKey::generate().unwrap().id();
    verify_signature(other, &[0x72], &signature).unwrap_err();
    for bit in 0..512 {
        let mut damaged = signature;
        damaged[bit / 8] ^= 1 << (bit % 8);
        verify_signature(key.id(), &[0x72], &damaged).unwrap_err();
    }
}

#[test]
fn a_saved_key_is_private_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.key");
    let key = NodeKey::generate().unwrap();
    key.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(NodeKey::load(&path).unwrap().id(), key.id());

    let before = fs::read(&path).unwrap();
    let error = NodeKey::generate().unwrap().save(&path).unwrap_err();
    assert!(matches!(error, Error::KeyFile { operation: "write", .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), before, "a key was overwritten");
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (_folder, path) = file(b"", 0o640);
    let error = NodeKey::load(&path).unwrap_err();
    assert!(matches!(error, Error::KeyExposed { mode: 0o640, .. }), "{error:?}");
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn what_is_no_key_is_refused() {
    let (_folder, path) = file(b"not a key", 0o600);
    assert!(matches!(NodeKey::load(&path).unwrap_err(), Error::KeyRejected { .. }));
    let (_folder, path) = file(&vec![0; KEY_FILE_BYTES_MAX as usize + 1], 0o600);
    assert_eq!(NodeKey::load(&path).unwrap_err().kind(), ErrorKind::Limit);
    let error = NodeKey::load(&path.with_file_name("absent")).unwrap_err();
    assert!(matches!(error, Error::KeyFile { operation: "read", .. }), "{error:?}");
}

#[test]
fn a_node_id_is_64_hex_digits() {
    let id: NodeId = PUBLIC.parse().unwrap();
    assert_eq!(format!("0x{}", PUBLIC.to_uppercase()).parse::<NodeId>().unwrap(), id);
    assert_eq!(id.to_string(), PUBLIC);
    for bad in ["", "0x", &PUBLIC[1..], &format!("{PUBLIC}00"), &PUBLIC.replace('3', "g")] {
        assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_key_does_not_show_its_secret() {
    assert_eq!(format!("{:?}", rfc8032_key()), format!("NodeKey(of {PUBLIC})"));
}
