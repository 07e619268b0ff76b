//! `POST /api/v1/commit`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::IntoResponse as _;

use super::answer::Answer;
use super::incoming::{Incoming, bad};
use super::routes::Api;
use super::signature::{Subject, from_headers, no_signature_headers, not_signed};
use super::types::CommitVmRequest;
use crate::auth::{Address, HEADER_MESSAGE, Level, SignedRequest};
use crate::error::{ApiError, ErrorCode};

/// The bytes whose hash stands in the message of a request that carries its signature in its body: the request's JSON
/// without `signature` and `address`, absent fields left out, no blanks, fields in the order of [`CommitVmRequest`].
pub fn signed_body(request: &CommitVmRequest) -> Vec<u8> {
    let bare = CommitVmRequest { signature: None, address: None, ..request.clone() };
    // A struct of strings, numbers and lists always has a JSON form.
    serde_json::to_vec(&bare).unwrap_or_default()
}

pub(super) async fn commit(State(api): State<Api>, request: Request<Body>) -> Answer {
    let incoming = Incoming::read(request).await?;
    let commit: CommitVmRequest = incoming.json()?;
    let id_or_name = match (&commit.id, &commit.name) {
        (Some(id), None) => id,
        (None, Some(name)) => name,
        (Some(_), Some(_)) => return Err(bad("both id and name are given").remedy("give one of them")),
        (None, None) => return Err(bad("neither id nor name is given").remedy("give one of them")),
    };
    let (instance, cluster) = api.instance(id_or_name).await?;
    if instance.node_id != api.core.node_id() {
        return api.forward_read(&instance.node_id, incoming).await;
    }
    let subject = Subject::Instance(&instance, &cluster);
    let signed = if commit.signature.is_some() || commit.address.is_some() {
        let (request, address) = from_body(&incoming, &commit)?;
        let signed = api.check(&incoming, request, &signed_body(&commit), subject, Level::Manager).await?;
        if signed.authorised.signer() != address {
            return Err(ApiError::new(ErrorCode::NotAllowed, format!("the request was not signed by {address}"))
                .cause(format!("the signer is {}", signed.authorised.signer())));
        }
        signed
    } else {
        let request = from_headers(&incoming)?;
        api.check(&incoming, request, &incoming.body, subject, Level::Manager).await?
    };
    // The request's hash is set by the transaction that begins the attempt: again, it is the same attempt.
    let accepted = api.core.commit(signed, &instance.instance_id, commit).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

/// The second carrier: `signature` is r, s and the recovery id (`00` or `01`) in hex; the message stays in its header.
fn from_body(incoming: &Incoming, commit: &CommitVmRequest) -> Result<(SignedRequest, Address), ApiError> {
    no_signature_headers(incoming)?;
    let (Some(signature), Some(address)) = (&commit.signature, &commit.address) else {
        return Err(bad("signature and address belong together in a body").remedy("give both, or sign in headers"));
    };
    let message = incoming.header(HEADER_MESSAGE)?.ok_or_else(not_signed)?;
    let (rs, recovery_id) = match signature.split_at_checked(128) {
        Some((rs, "00" | "0")) => (rs, "0"),
        Some((rs, "01" | "1")) => (rs, "1"),
        _ => {
            return Err(ApiError::new(ErrorCode::BadKey, "signature must be r and s (128 hex digits) and 00 or 01"));
        }
    };
    Ok((SignedRequest::from_headers(message, rs, recovery_id)?, address.parse()?))
}
