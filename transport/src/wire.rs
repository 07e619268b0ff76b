//! The framing on our QUIC streams. `PROTOCOL.md` describes it; golden bytes in the tests hold it.
//!
//! Each stream is opened by the dialer and begins with a [`StreamTag`] and [`VERSION`]. What follows
//! is made of *blocks*: a u32 length, little-endian, and that many bytes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Error, Result};

/// The application protocol that both ends name in the TLS handshake.
pub const ALPN: &[u8] = b"form/1";

/// The version of each stream's framing.
pub const VERSION: u8 = 1;

/// What a stream carries: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamTag {
    /// Envelopes in order, dialer to listener. One per connection, opened first.
    Control = 1,
    /// One block, answered by one block.
    Request = 2,
    /// One block, answered by items.
    Fetch = 3,
    /// HTTP/1.1, unframed.
    Http = 4,
}

/// What an entry of a fetch's answer is: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ItemTag {
    /// One item.
    Item = 1,
    /// The end; the block is the number of items, u64 little-endian.
    End = 2,
    /// The end, early; the block is the reason, UTF-8.
    Failed = 3,
}

/// Why a connection or stream was given up: the application error code in QUIC's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The node is shutting down, or the connection is no longer needed.
    Done = 0,
    /// The peer's key is not known here.
    UnknownNodeKey = 1,
    /// The peer sent something that this protocol does not allow.
    Protocol = 2,
    /// The peer sent something over a limit.
    Limit = 3,
    /// A newer connection of the same peer took this one's place.
    Replaced = 4,
}

impl From<CloseCode> for quinn::VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Begins a stream.
pub async fn write_header(writer: &mut (impl AsyncWrite + Unpin), tag: StreamTag) -> Result<()> {
    let written = writer.write_all(&[tag as u8, VERSION]).await;
    written.map_err(stream("stream header"))
}

/// Reads what a stream carries.
pub async fn read_header(reader: &mut (impl AsyncRead + Unpin)) -> Result<StreamTag> {
    const WHAT: &str = "stream header";
    let [tag, version] = read_exact(reader, WHAT).await?;
    if version != VERSION {
        let reason = format!("version {version}, and only {VERSION} is spoken here");
        return Err(Error::malformed(WHAT, reason));
    }
    match tag {
        1 => Ok(StreamTag::Control),
        2 => Ok(StreamTag::Request),
        3 => Ok(StreamTag::Fetch),
        4 => Ok(StreamTag::Http),
        _ => Err(Error::malformed(WHAT, format!("unknown tag {tag}"))),
    }
}

/// Writes a block. Refuses what the reader would refuse.
pub async fn write_block(
    writer: &mut (impl AsyncWrite + Unpin),
    what: &'static str,
    body: &[u8],
    max_bytes: u32,
) -> Result<()> {
    let len_bytes = block_len(what, body.len(), max_bytes)?;
    let head = len_bytes.to_le_bytes();
    writer.write_all(&head).await.map_err(stream(what))?;
    writer.write_all(body).await.map_err(stream(what))
}

/// Reads a block of at most `max_bytes`.
pub async fn read_block(reader: &mut (impl AsyncRead + Unpin), what: &'static str, max_bytes: u32) -> Result<Vec<u8>> {
    let len_bytes = u32::from_le_bytes(read_exact(reader, what).await?);
    read_body(reader, what, check(what, len_bytes, max_bytes)?).await
}

/// Reads a block, or `None` when the stream ends before it.
pub async fn read_block_or_end(
    reader: &mut (impl AsyncRead + Unpin),
    what: &'static str,
    max_bytes: u32,
) -> Result<Option<Vec<u8>>> {
    let mut first = [0];
    if reader.read(&mut first).await.map_err(stream(what))? == 0 {
        return Ok(None);
    }
    read_block(&mut first.as_slice().chain(reader), what, max_bytes).await.map(Some)
}

/// The head of an entry in a fetch's answer.
pub fn item_head(tag: ItemTag, len_bytes: u32) -> [u8; 5] {
    let [a, b, c, d] = len_bytes.to_le_bytes();
    [tag as u8, a, b, c, d]
}

/// Reads the head of an entry in a fetch's answer. The length is not yet checked: its limit depends on the tag.
pub async fn read_item_head(reader: &mut (impl AsyncRead + Unpin)) -> Result<(ItemTag, u32)> {
    const WHAT: &str = "head of a fetched item";
    let [tag, len @ ..] = read_exact::<5>(reader, WHAT).await?;
    let tag = match tag {
        1 => ItemTag::Item,
        2 => ItemTag::End,
        3 => ItemTag::Failed,
        _ => return Err(Error::malformed(WHAT, format!("unknown tag {tag}"))),
    };
    Ok((tag, u32::from_le_bytes(len)))
}

/// Compares an announced length with its limit.
pub fn check(what: &'static str, len_bytes: u32, max_bytes: u32) -> Result<u32> {
    if len_bytes > max_bytes {
        return Err(Error::TooLarge { what, len_bytes: len_bytes.into(), max_bytes: max_bytes.into() });
    }
    Ok(len_bytes)
}

/// Reads `len_bytes` bytes. Memory grows with what arrives, so that announcing a length is no way to take it.
pub async fn read_body(reader: &mut (impl AsyncRead + Unpin), what: &'static str, len_bytes: u32) -> Result<Vec<u8>> {
    const FIRST_BYTES: u32 = 64 * 1024;
    read_into(Vec::with_capacity(len_bytes.min(FIRST_BYTES) as usize), reader, what, len_bytes).await
}

/// Reads `len_bytes` bytes. The memory for them is taken at once: for callers of whom there are never many.
pub(crate) async fn read_at_once(
    reader: &mut (impl AsyncRead + Unpin),
    what: &'static str,
    len_bytes: u32,
) -> Result<Vec<u8>> {
    read_into(Vec::with_capacity(len_bytes as usize), reader, what, len_bytes).await
}

async fn read_into(
    mut body: Vec<u8>,
    reader: &mut (impl AsyncRead + Unpin),
    what: &'static str,
    len_bytes: u32,
) -> Result<Vec<u8>> {
    let mut limited = reader.take(len_bytes.into());
    limited.read_to_end(&mut body).await.map_err(stream(what))?;
    if body.len() < len_bytes as usize {
        return Err(truncated(what, body.len(), len_bytes as usize));
    }
    Ok(body)
}

/// The length of a block that we are about to send.
pub(crate) fn block_len(what: &'static str, len: usize, max_bytes: u32) -> Result<u32> {
    match u32::try_from(len) {
        Ok(len_bytes) => check(what, len_bytes, max_bytes),
        Err(_) => Err(Error::TooLarge { what, len_bytes: len as u64, max_bytes: max_bytes.into() }),
    }
}

async fn read_exact<const N: usize>(reader: &mut (impl AsyncRead + Unpin), what: &'static str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest).await.map_err(stream(what))? {
            0 => return Err(truncated(what, filled, N)),
            read => filled += read,
        }
    }
    Ok(bytes)
}

fn truncated(what: &'static str, got: usize, want: usize) -> Error {
    Error::Truncated { what, got_bytes: got as u64, want_bytes: want as u64 }
}

pub(crate) fn stream(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Stream { what, source }
}
