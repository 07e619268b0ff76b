//! A connection that we dialed.

use std::{io, net::SocketAddr, sync::Arc};

use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex, Semaphore},
    time::timeout,
};

use crate::{
    BiStream, Error, Items, NodeId, PeerAddr, Result,
    limits::{
        CONNECT_TIMEOUT, CONTROL_MESSAGE_BYTES_MAX, FETCH_REQUEST_BYTES_MAX, FETCHES_MAX, REPLY_BYTES_MAX,
        REQUEST_BYTES_MAX,
    },
    quic::{self, Socket},
    tls,
    wire::{self, CloseCode, StreamTag},
};

#[derive(Debug)]
pub(crate) struct Link {
    peer: PeerAddr,
    connection: Connection,
    control: Mutex<SendStream>,
    fetches: Arc<Semaphore>,
}

impl Link {
    /// Connects, and waits for the peer's word that it trusts us: its header on the control stream.
    pub(crate) async fn dial(socket: &Socket, peer: PeerAddr) -> Result<Self> {
        timeout(CONNECT_TIMEOUT, Self::handshake(socket, peer))
            .await
            .unwrap_or(Err(Error::ConnectTimeout { peer: peer.id, addr: peer.addr }))
    }

    async fn handshake(socket: &Socket, peer: PeerAddr) -> Result<Self> {
        const OPERATION: &str = "connect";
        let pin = tls::Pin::new(peer.id);
        let connecting = socket.dial(&peer, Arc::clone(&pin))?;
        let connection = connecting.await.map_err(|source| match (pin.wrong_key(), source) {
            (Some(found), _) => Error::WrongKey { addr: peer.addr, expected: peer.id, found },
            (None, ConnectionError::TimedOut) => Error::ConnectTimeout { peer: peer.id, addr: peer.addr },
            (None, source) => ended(OPERATION, peer.id, source),
        })?;
        let (mut send, mut recv) = connection.open_bi().await.map_err(|source| ended(OPERATION, peer.id, source))?;
        let hello = async {
            wire::write_header(&mut send, StreamTag::Control).await?;
            match wire::read_header(&mut recv).await? {
                StreamTag::Control => Ok(()),
                tag => Err(Error::malformed("hello", format!("tag {tag:?}"))),
            }
        };
        hello.await.map_err(|error| explain(OPERATION, peer.id, error))?;
        Ok(Self { peer, connection, control: Mutex::new(send), fetches: Arc::new(Semaphore::new(FETCHES_MAX)) })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.peer.addr
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Writes one control message, after all earlier ones.
    pub(crate) async fn control(&self, message: &[u8]) -> Result<()> {
        let mut stream = self.control.lock().await;
        // Half a message would be the end of the stream's framing. So a write that fails, or whose caller
        // stops waiting, ends the connection; the next message makes a new one.
        let mut whole = Whole { connection: &self.connection, done: false };
        wire::write_block(&mut *stream, "control message", message, CONTROL_MESSAGE_BYTES_MAX)
            .await
            .map_err(|error| self.explain("send a control message", error))?;
        whole.done = true;
        Ok(())
    }

    pub(crate) async fn request(&self, body: &[u8]) -> Result<Vec<u8>> {
        let exchange = async {
            let (mut send, mut recv) = self.open(StreamTag::Request).await?;
            wire::write_block(&mut send, "request", body, REQUEST_BYTES_MAX).await?;
            finish(&mut send).await?;
            wire::read_block(&mut recv, "reply", REPLY_BYTES_MAX).await
        };
        exchange.await.map_err(|e| self.explain("request", e))
    }

    pub(crate) async fn fetch(&self, request: &[u8]) -> Result<Items> {
        let turn = Arc::clone(&self.fetches).acquire_owned().await.map_err(|_| Error::Closed)?;
        // By now more is known of the round trip than right after the handshake.
        quic::widen(&self.connection);
        let asked = async {
            let (mut send, recv) = self.open(StreamTag::Fetch).await?;
            wire::write_block(&mut send, "fetch request", request, FETCH_REQUEST_BYTES_MAX).await?;
            finish(&mut send).await?;
            Ok(Items::new(self.peer.id, recv, turn))
        };
        asked.await.map_err(|e| self.explain("fetch", e))
    }

    pub(crate) async fn http(&self) -> Result<BiStream> {
        match self.open(StreamTag::Http).await {
            Ok((send, recv)) => Ok(BiStream::new(send, recv)),
            Err(error) => Err(self.explain("open an HTTP stream", error)),
        }
    }

    async fn open(&self, tag: StreamTag) -> Result<(SendStream, RecvStream)> {
        let (mut send, recv) =
            self.connection.open_bi().await.map_err(|source| ended("open a stream", self.peer.id, source))?;
        wire::write_header(&mut send, tag).await?;
        Ok((send, recv))
    }

    pub(crate) fn explain(&self, operation: &'static str, error: Error) -> Error {
        explain(operation, self.peer.id, error)
    }
}

async fn finish(send: &mut SendStream) -> Result<()> {
    let ended = send.shutdown().await;
    ended.map_err(wire::stream("end of a stream"))
}

/// Says what an I/O error of a stream was: a lost connection, or a peer that gave the stream up.
pub(crate) fn explain(operation: &'static str, peer: NodeId, error: Error) -> Error {
    let Error::Stream { what, source } = error else {
        return error;
    };
    match stream_end(&source) {
        Some(StreamEnd::Code(code)) => Error::Rejected { operation, peer, code },
        Some(StreamEnd::Connection(source)) => ended(operation, peer, source),
        None => Error::Stream { what, source },
    }
}

enum StreamEnd {
    Code(u64),
    Connection(ConnectionError),
}

fn stream_end(error: &io::Error) -> Option<StreamEnd> {
    let inner = error.get_ref()?;
    if let Some(error) = inner.downcast_ref::<ReadError>() {
        return match error {
            ReadError::Reset(code) => Some(StreamEnd::Code(code.into_inner())),
            ReadError::ConnectionLost(source) => Some(StreamEnd::Connection(source.clone())),
            _ => None,
        };
    }
    match inner.downcast_ref::<WriteError>()? {
        WriteError::Stopped(code) => Some(StreamEnd::Code(code.into_inner())),
        WriteError::ConnectionLost(source) => Some(StreamEnd::Connection(source.clone())),
        _ => None,
    }
}

fn ended(operation: &'static str, peer: NodeId, source: ConnectionError) -> Error {
    const UNKNOWN: u64 = CloseCode::UnknownNodeKey as u64;
    const PROTOCOL: u64 = CloseCode::Protocol as u64;
    const LIMIT: u64 = CloseCode::Limit as u64;
    match &source {
        ConnectionError::ApplicationClosed(close) => match close.error_code.into_inner() {
            UNKNOWN => Error::Refused { peer },
            code @ (PROTOCOL | LIMIT) => Error::Rejected { operation, peer, code },
            _ => Error::Lost { operation, peer, source },
        },
        _ => Error::Lost { operation, peer, source },
    }
}

struct Whole<'a> {
    connection: &'a Connection,
    done: bool,
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if !self.done {
            let reason = b"a control message was cut off";
            self.connection.close(CloseCode::Done.into(), reason);
        }
    }
}
