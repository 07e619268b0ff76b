//! Answers.

use axum::Json;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{ApiError, ErrorCode};

/// What a handler gives back.
pub(super) type Answer = Result<Response, ApiError>;

/// 200 with JSON.
pub(super) fn ok(body: &impl Serialize) -> Answer {
    Ok(Json(body).into_response())
}

/// The HTTP status that goes with a code; clients decide by the code.
pub(super) fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::BadKey => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::NotAllowed | ErrorCode::StaleRequest | ErrorCode::ReplayedRequest => StatusCode::FORBIDDEN,
        ErrorCode::Conflict | ErrorCode::WrongState | ErrorCode::Aborted => StatusCode::CONFLICT,
        ErrorCode::TargetUnfit | ErrorCode::MissingDependency | ErrorCode::Unsupported => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ErrorCode::TargetUnavailable | ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (status(self.code), Json(self)).into_response()
    }
}

/// Carries a request out to its end, even if whoever asked hangs up: an attempt that has begun in the store must not be
/// dropped before it has a coordinator.
pub(super) async fn to_its_end(request: Request, next: Next) -> Response {
    let answer = tokio::spawn(next.run(request)).await;
    answer.unwrap_or_else(|panic| ApiError::internal("answer the request", panic).into_response())
}

/// No such route.
pub(super) async fn no_route(uri: Uri) -> Response {
    let error = ApiError::new(ErrorCode::NotFound, format!("there is no {}", uri.path()))
        .remedy("GET /api/v1/openapi.json has every route");
    error.into_response()
}

/// The route is there for other methods.
pub(super) async fn no_method(uri: Uri) -> Response {
    let error = ApiError::new(ErrorCode::BadRequest, format!("{} does not take this method", uri.path()))
        .remedy("GET /api/v1/openapi.json has every route");
    (StatusCode::METHOD_NOT_ALLOWED, Json(error)).into_response()
}
