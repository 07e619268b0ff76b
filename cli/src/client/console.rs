//! The console's connection: a signed GET that becomes a stream of bytes.

use form_node::api::types::InstanceView;
use form_node::{ApiError, ErrorCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;

use super::connection::{exchange, lost};
use super::limits::ANSWER_TIMEOUT;
use super::request::{Client, ours, segment};
use super::signer::Signer;

/// What the connection becomes.
const PROTOCOL: &str = "form-console";

impl Client {
    /// Opens an instance's console.
    pub(crate) async fn console(
        &self,
        signer: &Signer,
        instance: &InstanceView,
    ) -> Result<TokioIo<Upgraded>, ApiError> {
        let path = format!("/api/v1/instances/{}/console", segment(&instance.instance_id));
        let mut request = self.builder(&Method::GET, &path).header(CONNECTION, "upgrade").header(UPGRADE, PROTOCOL);
        for (name, value) in signer.headers(&Method::GET, &path, instance.into(), &[])? {
            request = request.header(name, value);
        }
        let request = request.body(Full::<Bytes>::default()).map_err(ours)?;
        let answer = exchange(self.node(), request, ANSWER_TIMEOUT).await?;
        let answer = self.refuse_errors(answer).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ApiError::new(ErrorCode::Internal, format!("{} did not open the console", self.node()))
                .cause(format!("it answered {} instead of becoming {PROTOCOL}", answer.status())));
        }
        hyper::upgrade::on(answer).await.map(TokioIo::new).map_err(|error| lost(self.node()).cause(error))
    }
}
