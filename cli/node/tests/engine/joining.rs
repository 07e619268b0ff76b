//! Instances that join.

use std::time::Duration;

use form_node::ErrorCode;
use serde_json::json;

use crate::client::Signed;
use crate::scene::{Scene, flip};

fn join(scene: &Scene, name: &str, like: &str) -> Signed {
    let subject = Some((scene.cluster.as_str(), scene.id(like)));
    let body = json!({"name": name, "like": scene.id(like)}).to_string();
    Signed::new(&scene.owner, scene.store.installation_id(), subject, "POST", "/api/v1/instances", body)
}

#[tokio::test]
async fn promise_10_an_instance_that_can_not_join_leaves_nothing() {
    let scene = Scene::new(&[&["a"], &["b"], &[]]).await;
    let kernel = scene.dir.path().join("kernel");
    std::fs::rename(&kernel, scene.dir.path().join("elsewhere")).expect("rename");
    let error = join(&scene, "c", "a").refused(scene.nodes[2].api).await;
    assert_eq!(error.code, ErrorCode::MissingDependency, "{error:?}");
    scene.in_order().await;
    assert_eq!(scene.nodes[2].names("instances"), [""; 0]);
    assert_eq!(scene.store.find_instance("c").await.expect("read"), None);

    // The node it would be like has lost a base; the other images are not encoded again and again into new files.
    std::fs::rename(scene.dir.path().join("elsewhere"), &kernel).expect("rename");
    let manifest = scene.base("a", "memory").await.with_extension("manifest");
    flip(&manifest, 40);
    let (request, to) = (join(&scene, "c", "a"), scene.nodes[2].api);
    let joining = tokio::spawn(async move { request.accepted(to).await });
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(scene.node("a").names("staging").len() <= 1, "{:?}", scene.node("a").names("staging"));
    }
    flip(&manifest, 40);
    joining.await.expect("it joins in the end");
    scene.in_order().await;
}
