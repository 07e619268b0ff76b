//! Rights, given and taken back by the owner.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request};
use serde_json::json;

use super::answer::{Answer, ok};
use super::incoming::{Incoming, bad};
use super::routes::Api;
use super::signature::Subject;
use crate::auth::Level;
use crate::error::{ApiError, ErrorCode};
use crate::store::{GrantBody, GrantRecord, Other, PutGrant};

/// `POST` gives, `DELETE` takes back. Any node does it: grants live in the store, each with its own proof.
pub(super) async fn change(State(api): State<Api>, request: Request<Body>) -> Answer {
    let incoming = Incoming::read(request).await?;
    let revoked = incoming.parts.method == Method::DELETE;
    let body: GrantBody = incoming.json()?;
    match body.level {
        None if !revoked => return Err(bad("level is missing").remedy("give ReadOnly, Operator or Manager")),
        Some(Level::Owner) => return Err(bad("an owner can't be granted: there is one, and it stays")),
        _ => {}
    }
    let (instance, cluster) = api.instance(&body.instance_id).await?;
    if body.instance_id != instance.instance_id {
        return Err(bad("instance_id must be the instance's id as it is shown, not its name"));
    }
    let signed = api.check_once(&incoming, Subject::Instance(&instance, &cluster), Level::Owner).await?;
    let text = String::from_utf8(incoming.body.to_vec()).map_err(|e| bad("the body is not UTF-8").cause(e))?;
    let grant = GrantRecord {
        address: body.address,
        instance_id: instance.instance_id,
        cluster_id: cluster.cluster_id,
        level: body.level,
        version: body.version,
        revoked,
        request: signed.request,
        body: text,
        other: Other::new(),
    };
    match api.core.store().put_grant(&grant).await? {
        PutGrant::Stored => ok(&json!({
            "address": grant.address, "instance_id": grant.instance_id, "level": grant.level,
            "version": grant.version, "revoked": revoked,
        })),
        PutGrant::OutOfDate { version } => Err(ApiError::new(
            ErrorCode::Conflict,
            format!("there is a later grant for {}: version {version}", grant.address),
        )
        .remedy("give a higher version")),
    }
}
