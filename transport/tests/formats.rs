//! Golden bytes. They were made by formats.py beside this file, which shares no code with the crate.
//! A change here is a change of the protocol: it needs a new version, not a new value.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

use form_delta::Hash;
use form_transport::{
    Artifact, ArtifactKind, BulkRequest, COMMIT_VERSION, Commit, Envelope, Error, ErrorKind, FrameIndexBytes,
    FrameRange, NodeKey, Offer,
    limits::{self, COMMIT_BYTES_MAX, OFFER_BYTES_MAX},
    wire::{self, ItemTag, StreamTag},
};

const CONTROL_BLOCK: &str = "1d000000000102030405060708090a0b0c0d0e0f02000000616203000000010203";
const FRAMES_REQUEST: &str = "00000102030405060708090a0b0c0d0e0f66666666666666666666666666666666666666666666666666666666666666660200000003000000010000000700000020000000";
const COMMIT: &str = "0100040000006161313101111111111111111111111111111111111111111111111111111111111111111103000000060000006469736b2d300200000080000000002222222222222222222222222222222222222222222222222222222222222222060000006d656d6f7279000000002000000000333333333333333333333333333333333333333333333333333333333333333305000000737461746501d2040000000000004444444444444444444444444444444444444444444444444444444444444444f39fd6e51aad88f6f4ce6ab8827279cfffb922660500000068656c6c6f005e56eea1010000030000006d736704000000626232320a00000071656d7520372e322e30";
const COMMIT_ID: &str = "c94644a7a03ae7ac171f1890b5baa7d28999c783f4db12b3a9fe06a6a3c00f75";
const NODE_SIGNATURE: &str = "bc6092e40b689c023c880494cc142cc4911630c8eac08d4ec93756eb6623a9dbad5e190e726ff84191c3a1f3be2cbc1238ae04c119d48d2d030e0e3068e3810c";
const OFFER_BYTES: usize = 460;
const OFFER_HASH: &str = "2fdf50b1bae0a2d73eeda2d7eaaba543909d58c98fb26cad241e9a4428a84bed";
/// PKCS#8 v1 around the seed of RFC 8032, section 7.1, test 2.
const KEY: &str = "302e020100300506032b657004220420 4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";

const ATTEMPT: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn key() -> NodeKey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, hex::decode(KEY.replace(' ', "")).unwrap()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    NodeKey::load(&path).unwrap()
}

fn artifact(name: &str, kind: ArtifactKind, image_len_bytes: u64, root: u8) -> Artifact {
    Artifact { name: name.into(), kind, image_len_bytes, root: Hash::from_bytes([root; 32]) }
}

fn commit() -> Commit {
    Commit {
        version: COMMIT_VERSION,
        cluster: "aa11".into(),
        parent: Some([0x11; 32]),
        artifacts: vec![
            artifact("disk-0", ArtifactKind::Disk, 2 << 30, 0x22),
            artifact("memory", ArtifactKind::Memory, 512 << 20, 0x33),
            artifact("state", ArtifactKind::DeviceState, 1234, 0x44),
        ],
        author: hex::decode("f39fd6e51aad88f6f4ce6ab8827279cfffb92266").unwrap().try_into().unwrap(),
        description: "hello".into(),
        time_ms: 1_795_000_000_000,
        request_message: b"msg".to_vec(),
        source_instance: "bb22".into(),
        vmm: "qemu 7.2.0".into(),
    }
}

fn offer() -> Offer {
    let indexes = ["index of disk-0", "index of memory", "index of state"];
    let mut offer = Offer {
        commit: commit(),
        node_signature: [0; 64],
        request_signature: [0x55; 64],
        request_recovery_id: 1,
        request_body: b"{}".to_vec(),
        indexes: indexes.map(|index| FrameIndexBytes(index.into())).into(),
    };
    offer.sign(&key(), &ATTEMPT, 7);
    offer
}

#[tokio::test]
async fn framing() {
    for (tag, golden) in [
        (StreamTag::Control, [1, 1]),
        (StreamTag::Request, [2, 1]),
        (StreamTag::Fetch, [3, 1]),
        (StreamTag::Http, [4, 1]),
    ] {
        let mut bytes = Vec::new();
        wire::write_header(&mut bytes, tag).await.unwrap();
        assert_eq!(bytes, golden);
        assert_eq!(wire::read_header(&mut golden.as_slice()).await.unwrap(), tag);
    }
    assert_eq!(wire::ALPN, b"form/1");
    assert_eq!(wire::item_head(ItemTag::Item, 0x0102_0304), [1, 4, 3, 2, 1]);
    assert_eq!(wire::item_head(ItemTag::End, 8), [2, 8, 0, 0, 0]);
    assert_eq!(wire::item_head(ItemTag::Failed, 1), [3, 1, 0, 0, 0]);

    let envelope = Envelope { attempt: ATTEMPT, instance: "ab".into(), body: vec![1, 2, 3] };
    let mut block = Vec::new();
    wire::write_block(&mut block, "test", &envelope.encode().unwrap(), 100).await.unwrap();
    assert_eq!(hex::encode(&block), CONTROL_BLOCK);
    let body = wire::read_block(&mut block.as_slice(), "test", 100).await.unwrap();
    assert_eq!(Envelope::decode(&body).unwrap(), envelope);
}

#[tokio::test]
async fn blocks_that_end_early_or_announce_too_much() {
    let block = [3, 0, 0, 0, b'a', b'b', b'c'];
    for cut in 0..block.len() {
        let error = wire::read_block(&mut &block[..cut], "test", 3).await.unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "cut at {cut}: {error:?}");
        let end = wire::read_block_or_end(&mut &block[..cut], "test", 3).await;
        assert_eq!(matches!(end, Ok(None)), cut == 0, "cut at {cut}: {end:?}");
    }
    assert_eq!(wire::read_block_or_end(&mut &block[..], "test", 3).await.unwrap().unwrap(), b"abc");
    let error = wire::read_block(&mut &block[..], "test", 2).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { what: "test", len_bytes: 3, max_bytes: 2 }), "{error:?}");
    let error = wire::write_block(&mut Vec::new(), "test", b"abc", 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    // All of memory, announced by four bytes, on a stream that ends there.
    let error = wire::read_block(&mut [0xff; 4].as_slice(), "test", u32::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Truncated { got_bytes: 0, .. }), "{error:?}");
}

#[test]
fn fetch_requests() {
    let (session, index) = (ATTEMPT, [0x66; 32]);
    let ranges = vec![FrameRange { first: 3, count: 1 }, FrameRange { first: 7, count: 32 }];
    let frames = BulkRequest::Frames { session, index, ranges };
    assert_eq!(hex::encode(frames.encode().unwrap()), FRAMES_REQUEST);
    assert_eq!(BulkRequest::decode(&hex::decode(FRAMES_REQUEST).unwrap()).unwrap(), frames);
    let whole = BulkRequest::Index { session, index };
    assert_eq!(hex::encode(whole.encode().unwrap()), format!("01{}", &FRAMES_REQUEST[2..98]));
}

#[test]
fn commit_record() {
    assert_eq!(hex::encode(commit().encode()), COMMIT);
    assert_eq!(hex::encode(commit().id()), COMMIT_ID);
    assert_eq!(Commit::decode(&hex::decode(COMMIT).unwrap()).unwrap(), commit());
    let first = Commit { parent: None, ..commit() };
    assert_eq!(Commit::decode(&first.encode()).unwrap(), first);
}

#[test]
fn each_bit_of_a_commit_is_in_its_id() {
    let bytes = commit().encode();
    let mut decoded = 0;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // Most are no commit at all. Those that are have another id, and one encoding.
        if let Ok(other) = Commit::decode(&damaged) {
            decoded += 1;
            assert_eq!(other.encode(), damaged, "bit {bit}");
            assert_ne!(other.id(), commit().id(), "bit {bit}");
        }
    }
    assert!(decoded > 1000, "{decoded}");
    for cut in 0..bytes.len() {
        assert_eq!(Commit::decode(&bytes[..cut]).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {cut}");
    }
    assert_eq!(Commit::decode(&[bytes, vec![0]].concat()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn what_is_no_valid_commit() {
    let changed = |change: &dyn Fn(&mut Commit)| {
        let mut commit = commit();
        change(&mut commit);
        let decoded = Commit::decode(&commit.encode()).map(drop).map_err(|e| e.kind());
        assert_eq!(commit.validate().map_err(|e| e.kind()), decoded);
        decoded
    };
    let corrupt: &[&dyn Fn(&mut Commit)] = &[
        &|c| c.version = 2,
        &|c| c.cluster.clear(),
        &|c| c.cluster = "a/b".into(),
        &|c| c.source_instance = "..".into(),
        &|c| c.artifacts.swap(0, 1),
        &|c| c.artifacts[1].name = "disk-0".into(),
        &|c| c.artifacts[0].name = String::new(),
        &|c| c.artifacts[0].name = "Disk".into(),
        &|c| c.artifacts[0].name = "../x".into(),
        &|c| c.artifacts.clear(),
        &|c| drop(c.artifacts.remove(1)),
        &|c| c.artifacts[0].kind = ArtifactKind::Memory,
    ];
    for (n, change) in corrupt.iter().enumerate() {
        assert_eq!(changed(change), Err(ErrorKind::Corrupt), "change {n}");
    }
    let over: &[&dyn Fn(&mut Commit)] = &[
        &|c| c.cluster = "a".repeat(limits::ID_BYTES_MAX + 1),
        &|c| c.source_instance = "a".repeat(limits::ID_BYTES_MAX + 1),
        &|c| c.description = "a".repeat(limits::DESCRIPTION_BYTES_MAX + 1),
        &|c| c.vmm = "a".repeat(limits::VMM_BYTES_MAX + 1),
        &|c| c.request_message = vec![0; limits::REQUEST_MESSAGE_BYTES_MAX + 1],
        &|c| c.artifacts[0].name = "a".repeat(limits::ARTIFACT_NAME_BYTES_MAX + 1),
        &|c| c.artifacts[0].image_len_bytes = form_delta::limits::IMAGE_BYTES_MAX + 1,
        &|c| {
            let disk = |n| artifact(&format!("disk-{n:03}"), ArtifactKind::Disk, 1, 1);
            c.artifacts = (0..=limits::ARTIFACTS_MAX).map(disk).collect();
        },
    ];
    for (n, change) in over.iter().enumerate() {
        assert_eq!(changed(change), Err(ErrorKind::Limit), "change {n}");
    }
    assert_eq!(changed(&|c| c.artifacts.truncate(1)), Ok(()), "disks alone make a machine");
    assert_eq!(changed(&|c| c.artifacts.truncate(2)), Ok(()), "so does memory without a device state");
    assert_eq!(Commit::decode(&vec![0; COMMIT_BYTES_MAX as usize + 1]).unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn offer_record() {
    let offer = offer();
    assert_eq!(hex::encode(offer.node_signature), NODE_SIGNATURE);
    let bytes = offer.encode().unwrap();
    assert_eq!(bytes.len(), OFFER_BYTES);
    assert_eq!(Hash::of(&bytes).to_string(), OFFER_HASH);
    assert_eq!(Offer::decode(&bytes).unwrap(), offer);
    for cut in 0..bytes.len() {
        assert_eq!(Offer::decode(&bytes[..cut]).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {cut}");
    }
    assert_eq!(Offer::decode(&[bytes, vec![0]].concat()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn an_offer_is_bound_to_source_attempt_epoch_commit_and_frames() {
    let source = key().id();
    offer().verify(source, &ATTEMPT, 7).unwrap();

    let refused = |offer: &Offer, source, attempt, epoch| {
        let error = offer.verify(source, attempt, epoch).unwrap_err();
        assert!(matches!(error, Error::BadSignature { signer } if signer == source), "{error:?}");
    };
    refused(&offer(), NodeKey::generate().unwrap().id(), &ATTEMPT, 7);
    refused(&offer(), source, &[0; 16], 7);
    refused(&offer(), source, &ATTEMPT, 8);
    let changes: &[&dyn Fn(&mut Offer)] = &[
        &|o| o.commit.parent = None,
        &|o| o.commit.artifacts[2].root = Hash::from_bytes([0; 32]),
        &|o| o.commit.request_message.push(0),
        &|o| o.indexes[1].0[0] ^= 1,
        &|o| o.indexes.swap(0, 1),
        &|o| drop(o.indexes.pop()),
    ];
    for change in changes {
        let mut changed = offer();
        change(&mut changed);
        refused(&changed, source, &ATTEMPT, 7);
    }
}

#[test]
fn what_is_no_valid_offer() {
    let mut changed = offer();
    changed.request_recovery_id = 2;
    assert_eq!(changed.encode().unwrap_err().kind(), ErrorKind::Corrupt);
    let mut changed = offer();
    changed.indexes.pop();
    assert_eq!(changed.encode().unwrap_err().kind(), ErrorKind::Corrupt);
    let mut changed = offer();
    changed.indexes[0].0 = vec![0; limits::FRAME_INDEX_BYTES_MAX as usize + 1];
    assert_eq!(changed.encode().unwrap_err().kind(), ErrorKind::Limit);
    // Each fits, all together do not.
    let mut changed = offer();
    changed.indexes.iter_mut().for_each(|index| index.0 = vec![0; OFFER_BYTES_MAX as usize / 3]);
    assert_eq!(changed.encode().unwrap_err().kind(), ErrorKind::Limit);
    // An index that announces 4 GiB.
    let mut bytes = offer().encode().unwrap();
    let at = bytes.len() - "index of state".len() - 4;
    bytes[at..at + 4].fill(0xff);
    assert_eq!(Offer::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// PROTOCOL.md shows these very bytes.
#[test]
fn the_documented_examples_are_the_golden_bytes() {
    let examples: Vec<String> = include_str!("../PROTOCOL.md")
        .split("```hex\n")
        .skip(1)
        .map(|rest| {
            let block = rest.split("```").next().unwrap();
            let bytes = block.lines().flat_map(|line| line.split('#').next().unwrap().split_whitespace());
            bytes.collect()
        })
        .collect();
    assert_eq!(examples, [FRAMES_REQUEST.to_owned(), format!("0101{CONTROL_BLOCK}"), COMMIT.to_owned()]);
}
