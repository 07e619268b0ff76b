//! A request, read within its limits.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path};
use axum::http::Request;
use axum::http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::limits::{BODY_BYTES_MAX, BODY_WAIT};
use crate::error::{ApiError, ErrorCode};

/// Head and whole body.
pub(super) struct Incoming {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

impl Incoming {
    /// Reads the body up to the limit.
    pub(super) async fn read(request: Request<Body>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = tokio::time::timeout(BODY_WAIT, Limited::new(body, BODY_BYTES_MAX).collect())
            .await
            .map_err(|_| bad("the request's body did not come in time"))?
            .map_err(|error| {
                if error.downcast_ref::<LengthLimitError>().is_some() {
                    bad(format!("the request's body is longer than {BODY_BYTES_MAX} bytes"))
                } else {
                    bad("the request's body can't be read").cause(error)
                }
            })?;
        Ok(Self { parts, body: body.to_bytes() })
    }

    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            bad("the request's body is not what this route takes")
                .cause(error)
                .remedy("GET /api/v1/openapi.json has its fields")
        })
    }

    /// A value of a header that may be there once.
    pub(super) fn header(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.parts.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(bad(format!("the header {name} is there twice")));
        }
        value.to_str().map(Some).map_err(|_| bad(format!("the header {name} is not text")))
    }
}

/// The id (or name) in a route's path.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(error) => Err(bad("the path can't be read").cause(error)),
        }
    }
}

pub(super) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}
