//! What the records look like in the store. Another program reads them: a change here is a change of format.

use form_node::store::{AttemptRecord, ClusterRecord, InstanceRecord, NodeRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The record as written, and the same with fields that this version does not know, reads and writes unchanged.
fn golden<T: Serialize + DeserializeOwned>(text: &str) {
    let golden: Value = serde_json::from_str(text).expect("golden");
    let record: T = serde_json::from_value(golden.clone()).expect("read");
    assert_eq!(serde_json::to_value(&record).expect("write"), golden);
    let mut newer = golden;
    newer["from_a_later_version"] = serde_json::json!({"kept": [1, 2]});
    let record: T = serde_json::from_value(newer.clone()).expect("read");
    assert_eq!(serde_json::to_value(&record).expect("write"), newer);
}

#[test]
fn an_instance_keeps_the_names_of_the_platform() {
    golden::<InstanceRecord>(include_str!("golden/instance.json"));
}

#[test]
fn a_cluster() {
    golden::<ClusterRecord>(include_str!("golden/cluster.json"));
}

#[test]
fn an_attempt() {
    golden::<AttemptRecord>(include_str!("golden/attempt.json"));
}

#[test]
fn a_node() {
    golden::<NodeRecord>(
        r#"{"node_id":"aa","api_addr":"127.0.0.1:3002","quic_addr":"127.0.0.1:3003","enrolled_at":1700000000000}"#,
    );
}

#[test]
fn unknown_fields_inside_an_instance_are_kept_too() {
    let mut record: Value = serde_json::from_str(include_str!("golden/instance.json")).expect("golden");
    record["metadata"]["security"] = serde_json::json!({"tee": false});
    record["metadata"]["annotations"]["team"] = serde_json::json!("a");
    record["cluster"]["scaling_policy"] = serde_json::json!(null);
    record["snapshots"]["size"] = serde_json::json!(3);
    let read: InstanceRecord = serde_json::from_value(record.clone()).expect("read");
    assert_eq!(serde_json::to_value(&read).expect("write"), record);
}
