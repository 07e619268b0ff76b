//! Grants, and what they prove.

use form_node::auth::{Level, RequestMessage, SigningKey, sign};
use form_node::store::{GrantRecord, Other, PutGrant, Store};
use sha2::{Digest, Sha256};

use crate::scene::{CLUSTER, cluster, id, key, store};

/// A grant to `key(to)` as `by` signs it.
fn grant(store: &Store, by: &SigningKey, to: u8, level: Option<Level>, version: u64) -> GrantRecord {
    let address = key(to).address();
    let mut body = serde_json::json!({"address": address, "instance_id": id(1), "version": version});
    if let Some(level) = level {
        body["level"] = serde_json::json!(level);
    }
    let body = body.to_string();
    let message = RequestMessage {
        installation: store.installation_id().into(),
        cluster: CLUSTER.into(),
        instance: id(1),
        method: if level.is_some() { "POST" } else { "DELETE" }.into(),
        path: "/api/v1/accounts/grants".into(),
        body_sha256: Sha256::digest(&body).into(),
        time_ms: 1,
        nonce: [7; 16],
    };
    GrantRecord {
        address,
        instance_id: id(1),
        cluster_id: CLUSTER.into(),
        level,
        version,
        revoked: level.is_none(),
        request: sign(by, &message),
        body,
        other: Other::new(),
    }
}

async fn held(store: &Store, n: u8) -> Option<Level> {
    let cluster = store.cluster(CLUSTER).await.expect("read").expect("cluster");
    store.held_level(&cluster, key(n).address()).await.expect("held")
}

#[tokio::test]
async fn rights_are_given_and_taken_back_by_version() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    assert_eq!(held(&store, 1).await, Some(Level::Owner));
    assert_eq!(held(&store, 2).await, None);
    let put = async |grant: GrantRecord| store.put_grant(&grant).await.expect("put");
    assert_eq!(put(grant(&store, &key(1), 2, Some(Level::Manager), 10)).await, PutGrant::Stored);
    assert_eq!(held(&store, 2).await, Some(Level::Manager));
    assert_eq!(put(grant(&store, &key(1), 2, None, 20)).await, PutGrant::Stored);
    assert_eq!(held(&store, 2).await, None);
    // The earlier grant, sent again, gives nothing back.
    let late = put(grant(&store, &key(1), 2, Some(Level::Manager), 10)).await;
    assert_eq!(late, PutGrant::OutOfDate { version: 20 });
    assert_eq!(held(&store, 2).await, None);
    assert_eq!(held(&store, 3).await, None);
}

#[tokio::test]
async fn a_grant_counts_only_with_its_own_proof() {
    let (_dir, store) = store().await;
    cluster(&store, 1).await;
    let good = grant(&store, &key(1), 2, Some(Level::Operator), 1);
    let mut forged = vec![grant(&store, &key(5), 2, Some(Level::Operator), 2)];
    forged.push(GrantRecord { level: Some(Level::Manager), version: 3, ..good.clone() });
    forged.push(GrantRecord {
        address: key(2).address(),
        version: 4,
        ..grant(&store, &key(1), 3, Some(Level::Manager), 4)
    });
    forged.push(GrantRecord { body: good.body.replace("Operator", "Manager"), version: 5, ..good.clone() });
    forged.push(GrantRecord { revoked: false, version: 6, ..grant(&store, &key(1), 2, None, 6) });
    forged.push(GrantRecord { instance_id: id(2), version: 7, ..good.clone() });
    for (n, grant) in forged.into_iter().enumerate() {
        assert_eq!(store.put_grant(&grant).await.expect("put"), PutGrant::Stored, "{n}");
        assert_eq!(held(&store, 2).await, None, "{n}");
    }
    let last = grant(&store, &key(1), 2, Some(Level::Operator), 100);
    assert_eq!(store.put_grant(&last).await.expect("put"), PutGrant::Stored);
    assert_eq!(held(&store, 2).await, Some(Level::Operator));
}
