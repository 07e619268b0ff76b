//! The table of routes, and the router made from it.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};

use super::answer::{no_method, no_route, to_its_end};
use super::{attempts, commit, console, flight, grants, health, instances, openapi};
use crate::auth::Level;
use crate::core::Core;

/// What every handler has at hand.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) core: Arc<dyn Core>,
}

/// Who may use a route.
#[derive(Clone, Copy)]
pub(super) enum Who {
    /// Anyone who reaches the node.
    Anyone,
    /// Anyone with a key.
    AnyKey,
    /// A signer with this level on the instance.
    AtLeast(Level),
}

/// What a route answers with.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A JSON object of this schema.
    One(&'static str),
    /// A JSON array of them.
    Many(&'static str),
    /// A JSON object without a schema.
    Object,
    /// Server-sent events of this schema.
    Events(&'static str),
    /// The connection becomes a stream of bytes.
    Stream,
}

/// One route, below `/api/v1` and `/v1`.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) who: Who,
    /// Schema of the JSON body.
    pub(super) body: Option<&'static str>,
    pub(super) answer: (u16, Shape),
    handler: MethodRouter<Api>,
}

/// Where the routes are; the first is the path that is signed.
pub(super) const PREFIXES: [&str; 2] = ["/api/v1", "/v1"];

/// The API of a node.
pub fn router(core: Arc<dyn Core>) -> Router {
    let mut router = Router::new();
    for prefix in PREFIXES {
        for route in table() {
            router = router.route(&format!("{prefix}{}", route.path), route.handler);
        }
    }
    let router = router.fallback(no_route).method_not_allowed_fallback(no_method);
    router.layer(axum::middleware::from_fn(to_its_end)).with_state(Api { core })
}

#[rustfmt::skip]
pub(super) fn table() -> Vec<Route> {
    use Shape::{Events, Many, Object, One, Stream};
    use Who::{AnyKey, Anyone, AtLeast};
    let route = |method, path, summary, who, body, answer, handler| Route { method, path, summary, who, body, answer, handler };
    vec![
        route(Method::GET, "/node", "What this node is and can do",
            Anyone, None, (200, One("NodeView")), get(instances::node)),
        route(Method::GET, "/health", "What is right and wrong with this node",
            Anyone, None, (200, One("HealthView")), get(health::show)),
        route(Method::GET, "/flight", "What is in flight on this node; answered without the state store",
            Anyone, None, (200, One("FlightView")), get(flight::here)),
        route(Method::GET, "/nodes/{id}/flight", "What is in flight on a node",
            Anyone, None, (200, One("FlightView")), get(flight::there)),
        route(Method::GET, "/instances", "All instances of the installation",
            Anyone, None, (200, Many("InstanceView")), get(instances::list)),
        route(Method::POST, "/instances", "Make an instance here, from a spec or like another one (a Manager of that one)",
            AnyKey, Some("CreateRequest"), (200, One("Created")), post(instances::create)),
        route(Method::GET, "/instances/{id}", "One instance, by id or name, with its history",
            Anyone, None, (200, One("InstanceView")), get(instances::show)),
        route(Method::DELETE, "/instances/{id}", "Delete a stopped instance with its files",
            AtLeast(Level::Owner), None, (200, Object), delete(instances::delete)),
        route(Method::POST, "/instances/{id}/start", "Boot a stopped instance",
            AtLeast(Level::Operator), None, (200, One("InstanceView")), post(instances::start)),
        route(Method::POST, "/instances/{id}/stop", "Stop a running instance",
            AtLeast(Level::Operator), None, (200, One("InstanceView")), post(instances::stop)),
        route(Method::GET, "/instances/{id}/console", "Its serial console (Upgrade: form-console)",
            AtLeast(Level::Operator), None, (101, Stream), get(console::console)),
        route(Method::POST, "/commit", "Commit a running instance to its whole cluster",
            AtLeast(Level::Manager), Some("CommitVmRequest"), (202, One("CommitAccepted")), post(commit::commit)),
        route(Method::GET, "/attempts/{id}", "How a commit's attempt stands",
            Anyone, None, (200, One("AttemptView")), get(attempts::show)),
        route(Method::GET, "/attempts/{id}/events", "Its events from the first on, until it is settled",
            Anyone, None, (200, Events("AttemptEvent")), get(attempts::events)),
        route(Method::POST, "/accounts/grants", "Give an address a right on an instance and its cluster",
            AtLeast(Level::Owner), Some("GrantBody"), (200, Object), post(grants::change)),
        route(Method::DELETE, "/accounts/grants", "Take it back",
            AtLeast(Level::Owner), Some("GrantBody"), (200, Object), delete(grants::change)),
        route(Method::GET, "/openapi.json", "This document",
            Anyone, None, (200, Object), get(openapi::document)),
    ]
}
