//! Serving the API on a stream that another part of the node accepted.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves HTTP/1.1 on `stream` until either side ends it; an upgraded connection lives on by itself.
///
/// # Errors
/// The connection broke, or what came was not HTTP.
pub async fn serve_connection<S>(router: Router, stream: S) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await
}
