//! The node itself, and instances.

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde_json::json;

use super::answer::{Answer, ok};
use super::incoming::{Id, Incoming, bad};
use super::routes::Api;
use super::signature::Subject;
use super::types::CreateRequest;
use crate::auth::Level;
use crate::spec::SPEC_BYTES_MAX;
use crate::store::check_name;

pub(super) async fn node(State(api): State<Api>) -> Answer {
    ok(&api.core.view().await?)
}

pub(super) async fn list(State(api): State<Api>) -> Answer {
    ok(&api.instance_views().await?)
}

pub(super) async fn show(State(api): State<Api>, Id(id): Id) -> Answer {
    let (instance, cluster) = api.instance(&id).await?;
    ok(&api.instance_view(&instance, &cluster).await?)
}

/// From a spec: any key will do, its owner becomes the instance's. Like another instance: a Manager of that one. The
/// node that receives the request is the one that hosts the new instance.
pub(super) async fn create(State(api): State<Api>, request: Request<Body>) -> Answer {
    let incoming = Incoming::read(request).await?;
    let mut create: CreateRequest = incoming.json()?;
    check_name(&create.name)?;
    let signed = match (&create.spec, &create.like) {
        (Some(spec), None) => {
            if spec.len() > SPEC_BYTES_MAX {
                return Err(bad(format!("the spec is {} bytes long, the limit is {SPEC_BYTES_MAX}", spec.len())));
            }
            api.check_once(&incoming, Subject::Nothing, Level::Owner).await?
        }
        (None, Some(like)) => {
            let (instance, cluster) = api.instance(like).await?;
            let subject = Subject::Instance(&instance, &cluster);
            let signed = api.check_once(&incoming, subject, Level::Manager).await?;
            create.like = Some(instance.instance_id);
            signed
        }
        _ => return Err(bad("give exactly one of spec and like")),
    };
    ok(&api.core.create(signed, create).await?)
}

pub(super) async fn start(State(api): State<Api>, Id(id): Id, request: Request<Body>) -> Answer {
    api.lifecycle(&id, request, Level::Operator, Action::Start).await
}

pub(super) async fn stop(State(api): State<Api>, Id(id): Id, request: Request<Body>) -> Answer {
    api.lifecycle(&id, request, Level::Operator, Action::Stop).await
}

pub(super) async fn delete(State(api): State<Api>, Id(id): Id, request: Request<Body>) -> Answer {
    api.lifecycle(&id, request, Level::Owner, Action::Delete).await
}

enum Action {
    Start,
    Stop,
    Delete,
}

impl Api {
    async fn lifecycle(&self, id: &str, request: Request<Body>, needed: Level, action: Action) -> Answer {
        let (instance, cluster) = self.instance(id).await?;
        if instance.node_id != self.core.node_id() {
            return self.forward(&instance.node_id, request).await;
        }
        let incoming = Incoming::read(request).await?;
        self.check_once(&incoming, Subject::Instance(&instance, &cluster), needed).await?;
        match action {
            Action::Start => self.core.start(&instance.instance_id).await?,
            Action::Stop => self.core.stop(&instance.instance_id).await?,
            Action::Delete => {
                self.core.delete(&instance.instance_id).await?;
                return ok(&json!({}));
            }
        }
        let (instance, cluster) = self.instance(&instance.instance_id).await?;
        ok(&self.instance_view(&instance, &cluster).await?)
    }
}
