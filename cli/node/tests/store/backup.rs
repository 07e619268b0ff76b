//! A store that was put back from an older copy.

use form_node::store::{Abort, Error, ErrorKind, Store};

use crate::scene::{CLUSTER, begun, cluster, store};

#[tokio::test]
async fn a_restored_backup_is_refused_by_who_has_seen_more() {
    let (dir, before) = store().await;
    cluster(&before, 1).await;
    let copy = dir.path().join("backup.db");
    // The copy that a careful administrator makes: of one moment.
    let from = rusqlite::Connection::open(dir.path().join("state.db")).expect("open");
    from.execute("VACUUM INTO ?1", [copy.to_str().expect("text")]).expect("copy");

    let attempt = begun(&before, "r1").await;
    assert_eq!(before.abort(&attempt, "node-1").await.expect("abort"), Abort::Aborted);
    let seen = before.check_epoch(CLUSTER, 0).await.expect("epoch");
    assert_eq!(seen, 1);
    assert_eq!(before.check_epoch(CLUSTER, seen).await.expect("still"), 1);

    let restored = Store::open(&format!("sqlite:{}", copy.display())).await.expect("open");
    assert_eq!(restored.installation_id(), before.installation_id(), "it looks the same");
    let error = restored.check_epoch(CLUSTER, seen).await.expect_err("behind");
    assert!(matches!(error, Error::Behind { epoch: 0, seen: 1, .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
