//! Each target checks for itself what it is offered, and by whom.

use std::collections::HashMap;
use std::time::Duration;

use form_delta::Hash;
use form_node::auth::{Level, SigningKey};
use form_node::store::GrantBody;
use form_proto::{Body, CommitId, Outcome, Refusal};
use form_transport::{FrameIndexBytes, NodeKey};

use crate::before::Before;
use crate::client::Signed;
use crate::rogue::{BODY, Begun, Forgery, Rogue};
use crate::scene::{DISK_BYTES, MEMORY_BYTES, Scene};

type Changed = HashMap<&'static str, Vec<u8>>;

async fn scene() -> (Scene, Rogue) {
    let scene = Scene::new(&[&["a"], &["b"]]).await;
    scene.commit("a").await.committed();
    let rogue = Rogue::in_place_of(&scene, "a").await;
    (scene, rogue)
}

fn by<'a>(scene: &'a Scene, account: &'a SigningKey) -> Begun<'a> {
    Begun { account, coordinator: None, cluster: &scene.cluster, body: BODY }
}

async fn honest(scene: &Scene, rogue: &Rogue) -> Forgery {
    rogue.begin(scene, by(scene, &scene.owner), "b", &Changed::new()).await
}

/// It stages, is ready, and undoes that when the attempt is aborted.
async fn accepted(scene: &Scene, rogue: &mut Rogue, forgery: &Forgery) {
    rogue.offer(scene, forgery, "b").await;
    assert_eq!(rogue.heard(forgery).await.0, Body::Ready);
    rogue.abort(scene, forgery).await;
    rogue.say(scene, forgery, "b", Body::Decided(Outcome::Aborted), vec![]).await;
    assert_eq!(rogue.heard(forgery).await.0, Body::Settled(Outcome::Aborted));
}

#[tokio::test]
async fn promise_7_a_target_refuses_what_does_not_fit() {
    let (scene, mut rogue) = scene().await;
    let before = Before::of(&scene).await;
    // What is refused below is refused for what was changed alone.
    let forgery = honest(&scene, &rogue).await;
    accepted(&scene, &mut rogue, &forgery).await;

    type Change = Box<dyn Fn(&mut Forgery)>;
    let other_key = || NodeKey::generate().expect("key");
    let cases: Vec<(&str, Change)> = vec![
        ("signature", Box::new(move |f| f.signer = other_key())),
        ("not the one it is announced as", Box::new(|f| f.announced = Some(CommitId([7; 32])))),
        ("another cluster", Box::new(|f| f.offer.commit.cluster = "c".repeat(40))),
        ("another instance", Box::new(|f| f.offer.commit.source_instance = "d".repeat(40))),
        ("its parent is not the attempt's", Box::new(|f| f.offer.commit.parent = None)),
        ("its parent is not the attempt's", Box::new(|f| f.offer.commit.parent = Some([1; 32]))),
        ("its author did not sign", Box::new(|f| f.offer.commit.author = [1; 20])),
        ("another VMM", Box::new(|f| f.offer.commit.vmm = f.offer.commit.vmm.replace("none", "some"))),
        ("signature is not valid", Box::new(|f| f.offer.request_signature = [0; 64])),
        // Recovers to another account, which has no right here.
        ("may not do this", Box::new(|f| f.offer.request_recovery_id ^= 1)),
        ("another body", Box::new(|f| f.offer.request_body.push(b' '))),
        ("its description is not", Box::new(|f| f.offer.commit.description = "harmless".into())),
        ("malformed", Box::new(|f| f.offer.commit.request_message.truncate(40))),
        ("of another image", Box::new(|f| f.offer.commit.artifacts[1].root = Hash::of(b"another"))),
        ("this machine has no memory of", Box::new(|f| f.resize(1, 2 * MEMORY_BYTES))),
        ("this machine has no root of", Box::new(|f| f.resize(2, 2 * DISK_BYTES))),
        ("this machine has no swap of", Box::new(|f| f.offer.commit.artifacts[2].name = "swap".into())),
        ("frame", Box::new(|f| f.offer.indexes[0] = FrameIndexBytes(vec![0; 10]))),
    ];
    for (why, change) in cases {
        let mut forgery = honest(&scene, &rogue).await;
        change(&mut forgery);
        rogue.refused(&scene, &forgery, "b", why).await;
    }

    // A request for another cluster, and one that did not begin this attempt.
    let other_cluster = Begun { cluster: &"c".repeat(40), ..by(&scene, &scene.owner) };
    let forgery = rogue.begin(&scene, other_cluster, "b", &Changed::new()).await;
    rogue.refused(&scene, &forgery, "b", "made for cluster").await;
    let earlier = honest(&scene, &rogue).await;
    rogue.abort(&scene, &earlier).await;
    let mut forgery = honest(&scene, &rogue).await;
    forgery.offer.commit.request_message = earlier.offer.commit.request_message;
    forgery.offer.request_signature = earlier.offer.request_signature;
    forgery.offer.request_recovery_id = earlier.offer.request_recovery_id;
    rogue.refused(&scene, &forgery, "b", "another request began this attempt").await;

    // Requests that ask for something else.
    let other_targets = format!(r#"{{"description":"forged","targets":["{}"]}}"#, "e".repeat(40));
    for (body, why) in [
        (other_targets.as_str(), "names other targets"),
        (r#"{"description":"forged","dry_run":true}"#, "nothing to be changed"),
        (r#"{"name":"d"}"#, "description is not"),
        ("{", "can't be read"),
    ] {
        let begun = Begun { body, ..by(&scene, &scene.owner) };
        let forgery = rogue.begin(&scene, begun, "b", &Changed::new()).await;
        rogue.refused(&scene, &forgery, "b", why).await;
    }
    let targets = format!(r#"{{"description":"forged","targets":["0x{}"]}}"#, scene.id("b").to_uppercase());
    let begun = Begun { body: &targets, ..by(&scene, &scene.owner) };
    let forgery = rogue.begin(&scene, begun, "b", &Changed::new()).await;
    accepted(&scene, &mut rogue, &forgery).await;

    // A node that is not the source's host.
    let elsewhere = |record: &mut form_node::store::InstanceRecord| record.node_id = scene.node("b").id.clone();
    let forgery = honest(&scene, &rogue).await;
    scene.store.update_instance(scene.id("a"), elsewhere).await.expect("write");
    rogue.refused(&scene, &forgery, "b", "does not host the source").await;

    before.still_holds(&scene).await;
    scene.in_order().await;
    rogue.close().await;
}

#[tokio::test]
async fn promise_7_a_target_asks_for_the_signers_right_itself() {
    let (scene, mut rogue) = scene().await;
    let before = Before::of(&scene).await;
    let stranger = SigningKey::from_bytes(&[9; 32]).expect("a key");
    let forgery = rogue.begin(&scene, by(&scene, &stranger), "b", &Changed::new()).await;
    rogue.refused(&scene, &forgery, "b", "may not do this").await;

    for (version, level, allowed) in
        [(1, Some(Level::Manager), true), (2, None, false), (3, Some(Level::Operator), false)]
    {
        let grant = GrantBody { address: stranger.address(), instance_id: scene.id("b").into(), level, version };
        let method = if level.is_some() { "POST" } else { "DELETE" };
        let body = serde_json::to_string(&grant).expect("JSON");
        let subject = Some((scene.cluster.as_str(), scene.id("b")));
        let installation = scene.store.installation_id();
        let path = "/api/v1/accounts/grants";
        Signed::new(&scene.owner, installation, subject, method, path, body).accepted(scene.api("b")).await;
        let forgery = rogue.begin(&scene, by(&scene, &stranger), "b", &Changed::new()).await;
        match allowed {
            true => accepted(&scene, &mut rogue, &forgery).await,
            false => rogue.refused(&scene, &forgery, "b", "may not do this").await,
        }
    }
    before.still_holds(&scene).await;
    scene.in_order().await;
    rogue.close().await;
}

#[tokio::test]
async fn promise_6_what_is_stale_or_of_somebody_else_has_no_effect() {
    let (mut scene, mut rogue) = scene().await;
    let before = Before::of(&scene).await;
    // Of another epoch, of an attempt that never began, of one that another node coordinates: not even answered.
    let mut forgery = honest(&scene, &rogue).await;
    forgery.epoch += 1;
    rogue.offer(&scene, &forgery, "b").await;
    rogue.abort(&scene, &forgery).await;
    forgery.attempt.0 = [5; 16];
    rogue.offer(&scene, &forgery, "b").await;
    let coordinator = Some(scene.node("a").id.clone());
    let theirs = Begun { coordinator, ..by(&scene, &scene.owner) };
    let theirs = rogue.begin(&scene, theirs, "b", &Changed::new()).await;
    rogue.offer(&scene, &theirs, "b").await;
    rogue.say(&scene, &theirs, "b", Body::Activate, vec![]).await;
    rogue.abort(&scene, &theirs).await;

    // Activate is for those who are ready.
    let forgery = honest(&scene, &rogue).await;
    rogue.say(&scene, &forgery, "b", Body::Activate, vec![]).await;
    assert_eq!(rogue.heard(&forgery).await.0, Body::Refused(Refusal::NotPrepared));
    accepted(&scene, &mut rogue, &forgery).await;
    // A delayed message of an attempt that is settled gets the recorded outcome, also after a restart.
    for _ in 0..2 {
        for body in [Body::Activate, Body::Decided(Outcome::Aborted), Body::Offer { commit: CommitId([3; 32]) }] {
            assert_eq!(rogue.ask(&scene, &forgery, "b", body).await, Body::Settled(Outcome::Aborted), "{body:?}");
        }
        scene.node_mut("b").restart().await;
    }
    before.still_holds(&scene).await;
    scene.in_order().await;
    rogue.close().await;
}

/// What ran between the request and the offer is not what its user saw.
#[tokio::test]
async fn a_target_that_was_started_again_since_the_attempt_began_refuses() {
    let (scene, mut rogue) = scene().await;
    let forgery = honest(&scene, &rogue).await;
    for what in ["stop", "start"] {
        scene.post("b", &format!("/api/v1/instances/b/{what}")).accepted(scene.api("b")).await;
    }
    rogue.refused(&scene, &forgery, "b", "stopped or started since").await;
    let forgery = honest(&scene, &rogue).await;
    accepted(&scene, &mut rogue, &forgery).await;
    scene.in_order().await;
    rogue.close().await;
}

/// What was deleted since an offer holds nothing of it: whoever waits for it is told so.
#[tokio::test]
async fn a_deleted_instance_is_answered_for() {
    let (scene, mut rogue) = scene().await;
    let forgery = honest(&scene, &rogue).await;
    rogue.abort(&scene, &forgery).await;
    scene.post("b", "/api/v1/instances/b/stop").accepted(scene.api("b")).await;
    let subject = Some((scene.cluster.as_str(), scene.id("b")));
    let path = "/api/v1/instances/b";
    let delete = Signed::new(&scene.owner, scene.store.installation_id(), subject, "DELETE", path, String::new());
    delete.accepted(scene.api("b")).await;
    let answer = rogue.ask(&scene, &forgery, "b", Body::Decided(Outcome::Aborted)).await;
    assert_eq!(answer, Body::Refused(Refusal::Stale));
    rogue.close().await;
}

/// An index that promises more frames than the image could ever need.
#[tokio::test]
async fn promise_9_frames_are_held_against_the_length_of_their_image() {
    let (scene, mut rogue) = scene().await;
    let mut forgery = honest(&scene, &rogue).await;
    let mut index = form_delta::FrameIndex::decode(&forgery.offer.indexes[2].0).expect("an index");
    let frame = form_delta::FrameRef { hash: Hash::of(b"a frame"), len_bytes: 1 << 20 };
    index.frames = vec![frame; 6];
    forgery.offer.indexes[2] = FrameIndexBytes(index.encode());
    rogue.refused(&scene, &forgery, "b", "the frames of root are longer").await;
    rogue.close().await;
}

/// The coordinator says committed, the store does not: only the store's word counts.
#[tokio::test]
async fn promise_1_an_outcome_that_the_store_does_not_hold() {
    let (scene, mut rogue) = scene().await;
    let before = Before::of(&scene).await;
    let forgery = honest(&scene, &rogue).await;
    rogue.offer(&scene, &forgery, "b").await;
    assert_eq!(rogue.heard(&forgery).await.0, Body::Ready);
    rogue.say(&scene, &forgery, "b", Body::Decided(Outcome::Committed), vec![]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    rogue.abort(&scene, &forgery).await;
    scene.in_order().await;
    before.still_holds(&scene).await;
    rogue.close().await;
}

/// Frames that are what the source lists and signs, and make another image than the commit names.
#[tokio::test]
async fn promise_3_content_that_is_not_the_commits() {
    let (scene, mut rogue) = scene().await;
    let before = Before::of(&scene).await;
    let mut lie = std::fs::read(scene.base("b", "memory").await).expect("read");
    lie[5 << 20] ^= 1;
    let honest = honest(&scene, &rogue).await;
    rogue.abort(&scene, &honest).await;
    let changed = Changed::from([("memory", lie)]);
    let mut forgery = rogue.begin(&scene, by(&scene, &scene.owner), "b", &changed).await;
    // The root of what the base is, the frames of something else.
    let memory = &mut forgery.offer;
    let mut index = form_delta::FrameIndex::decode(&memory.indexes[1].0).expect("an index");
    let listed = index.hash();
    index.new_root = honest.offer.commit.artifacts[1].root;
    rogue.list_as(listed, index.clone());
    memory.commit.artifacts[1].root = index.new_root;
    memory.indexes[1] = FrameIndexBytes(index.encode());
    rogue.refused(&scene, &forgery, "b", "memory could not be built").await;
    before.still_holds(&scene).await;
    scene.in_order().await;
    rogue.close().await;
}
