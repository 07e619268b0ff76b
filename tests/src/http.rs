//! HTTP by hand, for requests that no `form` would make.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use form_node::ApiError;

use crate::{Context, Error, Result};

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body as it came.
    pub body: String,
}

impl Reply {
    /// The error in it.
    ///
    /// # Errors
    /// There is none.
    pub fn error(&self) -> Result<ApiError> {
        serde_json::from_str(&self.body).context(|| format!("read an error in {self:?}"))
    }
}

/// Sends one request with a JSON body and reads its answer to the end.
///
/// # Errors
/// The connection's, or an answer that is no HTTP.
pub fn send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, String)], body: &str) -> Result<Reply> {
    let io = || format!("{method} {path} at {to}");
    let mut stream = TcpStream::connect(to).context(io)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).context(io)?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("\r\n{body}");
    stream.write_all(request.as_bytes()).context(io)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context(io)?;
    let answer = String::from_utf8_lossy(&answer);
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Reply { status, body: body.to_owned() })
    });
    parts.ok_or_else(|| Error::new(format!("{}: no HTTP answer: {answer:?}", io())))
}
