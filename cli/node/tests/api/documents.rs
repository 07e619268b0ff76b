//! What is shown: instances, and the OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};

use form_node::api::flight::{AttemptInFlight, FlightView, ParticipantInFlight};
use form_node::api::health::{Finding, HealthView, Verdict};
use form_node::api::types::{
    ArtifactSummary, AttemptEvent, AttemptView, CommitAccepted, CommitSummary, CommitVmRequest, CreateRequest, Created,
    InstanceView, NodeView, SnapshotView, TargetSummary, VmmView,
};
use form_node::auth::Level;
use form_node::store::GrantBody;
use form_node::{ApiError, Core as _, ErrorCode};
use serde::Serialize;
use serde_json::Value;

use crate::client::call;
use crate::fake::{id, key, nodes, owner};

#[tokio::test]
async fn instances_are_shown_with_their_siblings_and_history() {
    let nodes = nodes(2).await;
    let commit = "ab".repeat(32);
    nodes.store.record_snapshot(&id(1), &"aa".repeat(32), 10, Some("first")).await.expect("record");
    nodes.store.record_snapshot(&id(1), &commit, 20, None).await.expect("record");
    let list = call("GET", "/v1/instances", "").send(nodes.addrs[0]).await.json();
    let shown: Vec<_> =
        list.as_array().expect("list").iter().map(|i| (i["name"].clone(), i["local"].clone())).collect();
    assert_eq!(shown, [("vm-1".into(), true.into()), ("vm-2".into(), false.into())]);
    for what in ["vm-1", &id(1)] {
        let view = call("GET", &format!("/api/v1/instances/{what}"), "").send(nodes.addrs[1]).await.json();
        let view: InstanceView = serde_json::from_value(view).expect("a view");
        assert_eq!((view.instance_id, view.owner, view.local), (id(1), owner().to_string(), false));
        assert_eq!((view.members, view.status.as_str()), (vec!["vm-1".to_owned(), "vm-2".into()], "Created"));
        assert_eq!(view.snapshot_id.as_deref(), Some(commit.as_str()));
        let history: Vec<_> = view.snapshots.iter().map(|s| (s.timestamp_ms, s.description.as_str())).collect();
        assert_eq!(history, [(10_000, "first"), (20_000, "")]);
        assert_eq!(view.snapshots[1].previous_snapshot, Some("aa".repeat(32)));
    }
}

async fn document() -> Value {
    let nodes = nodes(1).await;
    let reply = call("GET", "/api/v1/openapi.json", "").send(nodes.addrs[0]).await;
    assert_eq!(reply.status, 200);
    reply.json()
}

#[tokio::test]
async fn every_route_is_documented() {
    let document = document().await;
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let routes = [
        "GET /node",
        "GET /health",
        "GET /flight",
        "GET /nodes/{id}/flight",
        "GET /instances",
        "POST /instances",
        "GET /instances/{id}",
        "DELETE /instances/{id}",
        "POST /instances/{id}/start",
        "POST /instances/{id}/stop",
        "GET /instances/{id}/console",
        "POST /commit",
        "GET /attempts/{id}",
        "GET /attempts/{id}/events",
        "POST /accounts/grants",
        "DELETE /accounts/grants",
        "GET /openapi.json",
    ];
    let expected: BTreeSet<String> = routes
        .iter()
        .flat_map(|r| ["/api/v1", "/v1"].map(|prefix| r.replacen(' ', &format!(" {prefix}"), 1)))
        .collect();
    assert_eq!(documented, expected);
    // And each of them is there: no fallback answers.
    let nodes = nodes(1).await;
    for route in documented {
        let (method, path) = route.split_once(' ').expect("two words");
        let method = ["GET", "POST", "DELETE"].into_iter().find(|m| *m == method).expect("a method");
        let reply = call(method, &path.replace("{id}", "vm-1"), "").send(nodes.addrs[0]).await;
        let text = String::from_utf8_lossy(&reply.body);
        assert!(!text.contains("there is no /") && reply.status != 405, "{route}: {text}");
    }
}

#[tokio::test]
async fn every_reference_has_its_schema() {
    let document = document().await;
    let text = document.to_string();
    let named: BTreeSet<&str> =
        text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let schemas: BTreeSet<&str> =
        document["components"]["schemas"].as_object().expect("schemas").keys().map(String::as_str).collect();
    assert_eq!(named, schemas);
    let ids: Vec<&str> = text.split("\"operationId\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "operation ids are unique");
}

/// The fields of a value in which every optional one is set are those of its schema.
fn matches(schemas: &Value, name: &str, full: &impl Serialize) {
    let full = serde_json::to_value(full).expect("json");
    let fields: BTreeSet<&String> = full.as_object().expect("an object").keys().collect();
    let schema: BTreeSet<&String> = schemas[name]["properties"].as_object().expect(name).keys().collect();
    assert_eq!(fields, schema, "{name}");
    for required in schemas[name]["required"].as_array().expect(name) {
        assert!(schema.contains(&required.as_str().expect("a name").to_owned()), "{name}: {required}");
    }
}

#[tokio::test]
async fn the_schemas_have_the_fields_of_the_types() {
    let schemas = document().await["components"]["schemas"].take();
    let text = || "x".to_owned();
    let error = ApiError::new(ErrorCode::Internal, "m").cause("c").remedy("r");
    let vmm = VmmView { vmm: text(), version: text(), machine_type: text(), accelerator: text(), cpu_model: text() };
    let node = NodeView {
        node_id: text(),
        version: text(),
        installation_id: text(),
        api: text(),
        quic: text(),
        store: text(),
        vmm: Some(vmm.clone()),
        vmm_error: Some(text()),
        engine: text(),
        instances: 0,
        data_free_bytes: 0,
    };
    let snapshot =
        SnapshotView { snapshot_id: text(), timestamp_ms: 0, description: text(), previous_snapshot: Some(text()) };
    let instance = InstanceView {
        instance_id: text(),
        name: text(),
        node_id: text(),
        cluster_id: text(),
        owner: text(),
        status: text(),
        snapshot_id: Some(text()),
        local: true,
        members: vec![],
        snapshots: vec![],
        attempt_id: None,
    };
    let commit = CommitVmRequest {
        id: Some(text()),
        name: Some(text()),
        signature: Some(text()),
        address: Some(text()),
        description: Some(text()),
        targets: Some(vec![]),
        dry_run: Some(true),
        timeout_s: Some(1),
        parent: Some(text()),
    };
    let attempt = AttemptView {
        attempt_id: text(),
        instance_id: text(),
        outcome: text(),
        settled: true,
        last_event: None,
        waits_for: vec![text()],
    };
    let accepted = CommitAccepted { attempt_id: text(), instance_id: text(), node_id: text(), targets: vec![] };
    let created = Created { instance_id: text(), cluster_id: text(), snapshot_id: None, received_bytes: 0 };
    let grant = GrantBody { address: key(1).address(), instance_id: text(), level: Some(Level::Manager), version: 1 };
    let finding = Finding { check: text(), verdict: Verdict::Note, message: text(), remedy: Some(text()) };
    let attempt_in_flight = AttemptInFlight {
        attempt_id: text(),
        cluster_id: text(),
        instance_id: text(),
        epoch: 1,
        phase: text(),
        phase_ms: 0,
        age_ms: 0,
        decided: false,
    };
    let participant = ParticipantInFlight {
        instance_id: text(),
        name: text(),
        cluster_id: text(),
        attempt_id: text(),
        epoch: 1,
        coordinator: text(),
        role: text(),
        step: text(),
    };
    matches(&schemas, "HealthView", &HealthView::new(Some(text()), true, vec![]));
    matches(&schemas, "Finding", &finding);
    let flight = FlightView { node_id: text(), store_silent_ms: Some(1), attempts: vec![], participants: vec![] };
    matches(&schemas, "FlightView", &flight);
    matches(&schemas, "AttemptInFlight", &attempt_in_flight);
    matches(&schemas, "ParticipantInFlight", &participant);
    matches(&schemas, "ApiError", &error);
    matches(&schemas, "VmmView", &vmm);
    matches(&schemas, "NodeView", &node);
    matches(&schemas, "SnapshotView", &snapshot);
    matches(&schemas, "InstanceView", &instance);
    matches(&schemas, "CreateRequest", &CreateRequest { name: text(), spec: Some(text()), like: Some(text()) });
    matches(&schemas, "Created", &created);
    matches(&schemas, "CommitVmRequest", &commit);
    matches(&schemas, "CommitAccepted", &accepted);
    matches(&schemas, "AttemptView", &attempt);
    matches(&schemas, "CommitSummary", &CommitSummary::default());
    matches(&schemas, "ArtifactSummary", &ArtifactSummary::default());
    matches(&schemas, "TargetSummary", &TargetSummary::default());
    matches(&schemas, "GrantBody", &grant);

    let phase = text;
    let events = [
        AttemptEvent::Phase { target: Some(text()), phase: phase(), at_ms: 0 },
        AttemptEvent::Bytes { target: Some(text()), phase: phase(), done: 0, total: 0 },
        AttemptEvent::Warning { target: text(), message: text() },
        AttemptEvent::Snapshot { snapshot_id: text() },
        AttemptEvent::Committed { snapshot_id: text() },
        AttemptEvent::Failed { error },
        AttemptEvent::Settled { summary: None },
    ];
    let mut by_type = BTreeMap::new();
    for variant in schemas["AttemptEvent"]["oneOf"].as_array().expect("variants") {
        let name = variant["properties"]["type"]["const"].as_str().expect("a type");
        by_type.insert(name, variant.clone());
    }
    assert_eq!(by_type.len(), events.len());
    for event in events {
        let name = serde_json::to_value(&event).expect("json")["type"].as_str().expect("type").to_owned();
        matches(&Value::Object([(name.clone(), by_type[name.as_str()].clone())].into_iter().collect()), &name, &event);
    }
}

#[tokio::test]
async fn what_is_in_flight_and_what_is_wrong_is_of_the_node_that_is_meant() {
    let nodes = nodes(2).await;
    let other = nodes.nodes[1].node_id();
    for (path, by) in [("flight".to_owned(), 0), (format!("nodes/{other}/flight"), 1)] {
        let view = call("GET", &format!("/api/v1/{path}"), "").send(nodes.addrs[0]).await.json();
        let view: FlightView = serde_json::from_value(view).expect("a view");
        assert_eq!((view.node_id, view.store_silent_ms), (nodes.nodes[by].node_id(), Some(12_000)), "{path}");
        assert_eq!([0, 1].map(|node: usize| nodes.nodes[node].calls().len()), [1 - by, by], "{path}");
    }
    let unknown = call("GET", &format!("/api/v1/nodes/{}/flight", "0".repeat(64)), "").send(nodes.addrs[0]).await;
    assert_eq!(unknown.status, 503);
    let health = call("GET", "/api/v1/health", "").send(nodes.addrs[0]).await.json();
    let health: HealthView = serde_json::from_value(health).expect("a view");
    assert!(!health.healthy, "one problem is enough");
}
