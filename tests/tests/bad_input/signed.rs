//! Requests signed by hand: what no `form` would send.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use form_node::api::types::InstanceView;
use form_node::auth::{RequestMessage, SigningKey, sign};
use form_tests::{Context, Reply, Result, send};
use sha2::{Digest, Sha256};

/// A signed `POST /api/v1/commit`, to be sent as often as one likes.
pub(crate) struct SignedCommit {
    headers: Vec<(&'static str, String)>,
    body: String,
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a clock before the year 584 million")
}

impl SignedCommit {
    /// Of `instance`, as if signed at `time_ms`; `more` are further members of the body.
    pub(crate) fn new(
        key: &str,
        installation: &str,
        instance: &InstanceView,
        time_ms: u64,
        more: &str,
    ) -> Result<Self> {
        let key = SigningKey::from_hex(key).context(|| "read the key".into())?;
        let body = format!("{{\"id\":\"{}\"{more}}}", instance.instance_id);
        let message = RequestMessage {
            installation: installation.to_owned(),
            cluster: instance.cluster_id.clone(),
            instance: instance.instance_id.clone(),
            method: "POST".into(),
            path: "/api/v1/commit".into(),
            body_sha256: Sha256::digest(body.as_bytes()).into(),
            time_ms,
            nonce: Sha256::digest(format!("{time_ms}{more}"))[..16].try_into().expect("16 bytes"),
        };
        Ok(Self { headers: sign(&key, &message).to_headers().to_vec(), body })
    }

    /// Sends it.
    pub(crate) fn send(&self, api: SocketAddr) -> Result<Reply> {
        send(api, "POST", "/api/v1/commit", &self.headers, &self.body)
    }
}
