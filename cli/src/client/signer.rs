//! Signs requests for one installation.

use form_node::auth::{NOTHING, RequestMessage, SigningKey, canonical_path, sign};
use form_node::{ApiError, ErrorCode};
use hyper::Method;
use sha2::{Digest, Sha256};

use form_node::api::types::InstanceView;

use crate::clock;

/// What a request is about: ids, never names, so that what was signed can't be made to mean something else.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    cluster: &'a str,
    instance: &'a str,
}

impl Subject<'static> {
    /// Neither a cluster nor an instance that exists.
    pub(crate) const NONE: Self = Self { cluster: NOTHING, instance: NOTHING };
}

impl<'a> From<&'a InstanceView> for Subject<'a> {
    fn from(instance: &'a InstanceView) -> Self {
        Self { cluster: &instance.cluster_id, instance: &instance.instance_id }
    }
}

/// A key, and what it signs for.
pub(crate) struct Signer {
    key: SigningKey,
    installation: String,
}

impl Signer {
    pub(crate) fn new(key: SigningKey, installation: String) -> Self {
        Self { key, installation }
    }

    /// The headers that sign this very request.
    pub(super) fn headers(
        &self,
        method: &Method,
        path: &str,
        subject: Subject<'_>,
        body: &[u8],
    ) -> Result<[(&'static str, String); 3], ApiError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)
            .map_err(|error| ApiError::new(ErrorCode::Internal, "the system gives no random bytes").cause(error))?;
        let message = RequestMessage {
            installation: self.installation.clone(),
            cluster: subject.cluster.to_owned(),
            instance: subject.instance.to_owned(),
            method: method.to_string(),
            path: canonical_path(path).into_owned(),
            body_sha256: Sha256::digest(body).into(),
            time_ms: clock::now_ms(),
            nonce,
        };
        Ok(sign(&self.key, &message).to_headers())
    }
}
