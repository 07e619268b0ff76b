//! The state store: what a backend must do, and the records and transactions above it.

mod backup;
mod conformance;
mod faulty;
mod instances;
mod interleaved;
mod records;
mod rights;
mod scene;
mod transactions;

use std::sync::Arc;

use form_node::store::{Kv, SqliteKv};

/// A backend under test: two independent clients of the same empty store.
struct Pair {
    a: Arc<dyn Kv>,
    b: Arc<dyn Kv>,
    _dir: tempfile::TempDir,
}

async fn sqlite() -> Pair {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("state.db");
    let a = Arc::new(SqliteKv::open(&path).await.expect("open"));
    let b = Arc::new(SqliteKv::open(&path).await.expect("open again"));
    Pair { a, b, _dir: dir }
}

/// Runs each test of the conformance suite against one backend.
macro_rules! conformance {
    ($backend:ident: $($test:ident)*) => {
        mod $backend {
            $(#[tokio::test]
            async fn $test() {
                crate::conformance::$test(&super::$backend().await).await;
            })*
        }
    };
}

conformance! {sqlite:
    what_is_put_is_read
    a_listing_has_the_prefix_and_no_more
    absent_means_absent
    a_revision_is_compared
    all_of_a_transaction_or_nothing
    revisions_only_grow
    racing_writers_lose_no_update
    a_lease_takes_its_keys_with_it
    an_expired_lease_takes_its_keys_with_it
    a_lease_that_is_kept_alive_stays
    a_dead_lease_is_refused
    a_put_without_lease_frees_the_key
    a_watch_sees_what_another_client_does
    a_watch_misses_nothing_since_its_revision
    a_watch_sees_a_lease_expire
    limits_come_first
}
