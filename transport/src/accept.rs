//! Connections that peers dialed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tracing::{debug, error, warn};

use crate::{
    BiStream, Envelope, Error, ErrorKind, NodeId, Result, Service, fetch,
    limits::{
        CLOSE_GRACE, CONNECT_TIMEOUT, CONTROL_MESSAGE_BYTES_MAX, FETCH_REQUEST_BYTES_MAX, HANDSHAKES_MAX,
        INBOUND_CONNECTIONS_PER_PEER_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX,
    },
    quic, tls,
    traffic::Traffic,
    wire::{self, CloseCode, StreamTag},
};

/// What all inbound connections share.
pub(crate) struct Listener {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) inbound: Inbound,
    pub(crate) acceptor: quic::Acceptor,
}

impl Listener {
    /// Serves peers until the endpoint is closed, then waits for what still runs, for a while.
    pub(crate) async fn run(self: Arc<Self>, endpoint: Endpoint) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    None => break,
                    Some(incoming) => match Arc::clone(&handshakes).try_acquire_owned() {
                        Ok(permit) => {
                            let listener = Arc::clone(&self);
                            connections.spawn(async move {
                                let trusted = listener.welcome(incoming).await;
                                drop(permit);
                                if let Some((peer, connection)) = trusted {
                                    listener.serve(peer, connection).await;
                                }
                            });
                        }
                        Err(_) => incoming.refuse(),
                    },
                },
                Some(ended) = connections.join_next() => report(ended),
            }
        }
        let drained = timeout(CLOSE_GRACE, async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        });
        if drained.await.is_err() {
            warn!(count = connections.len(), "dropping connections whose handlers did not end");
        }
    }

    /// The handshake and the question of trust. Nothing of the peer's streams has been read yet.
    async fn welcome(&self, incoming: Incoming) -> Option<(NodeId, Connection)> {
        let from = incoming.remote_address();
        let welcomed = timeout(CONNECT_TIMEOUT, async {
            let connection = match self.acceptor.accept(incoming) {
                Ok(connecting) => connecting.await,
                Err(error) => Err(error),
            };
            let connection = connection.inspect_err(|error| debug!(%from, %error, "handshake failed")).ok()?;
            let peer = tls::peer_id(&connection)?;
            if !self.service.trusted(peer).await {
                warn!(%from, %peer, "refused: unknown node key");
                connection.close(CloseCode::UnknownNodeKey.into(), b"unknown node key");
                return None;
            }
            quic::widen(&connection);
            Some((peer, connection))
        });
        welcomed.await.inspect_err(|_| debug!(%from, "no handshake in time")).ok().flatten()
    }

    async fn serve(self: Arc<Self>, peer: NodeId, connection: Connection) {
        self.traffic.watch(peer, &connection);
        self.inbound.admit(peer, &connection);
        let budget = fetch::budget();
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                accepted = connection.accept_bi() => match accepted {
                    Ok((send, recv)) => {
                        let serving = Serving {
                            listener: Arc::clone(&self),
                            budget: Arc::clone(&budget),
                            connection: connection.clone(),
                            peer,
                        };
                        streams.spawn(serving.stream(send, recv));
                    }
                    Err(error) => {
                        debug!(%peer, %error, "connection ended");
                        break;
                    }
                },
                Some(ended) = streams.join_next() => report(ended),
            }
        }
        // Handlers are not cut off in the middle: their next read or write fails and they end by themselves.
        while let Some(ended) = streams.join_next().await {
            report(ended);
        }
    }
}

/// One stream of one connection.
struct Serving {
    listener: Arc<Listener>,
    budget: Arc<Semaphore>,
    connection: Connection,
    peer: NodeId,
}

impl Serving {
    async fn stream(self, mut send: SendStream, mut recv: RecvStream) {
        let peer = self.peer;
        let tag = match wire::read_header(&mut recv).await {
            Ok(tag) => tag,
            Err(error) => return give_up(peer, &error, &mut send, &mut recv),
        };
        let served = match tag {
            StreamTag::Control => self.control(&mut send, &mut recv).await,
            StreamTag::Request => self.request(&mut send, &mut recv).await,
            StreamTag::Fetch => self.fetch(&mut send, &mut recv).await,
            StreamTag::Http => {
                let stream = BiStream::new(send, recv);
                return self.listener.service.http(peer, stream).await;
            }
        };
        if let Err(error) = served {
            if tag == StreamTag::Control && self.connection.close_reason().is_none() {
                // The order of messages is lost with the stream, so the whole connection goes.
                let code = close_code(&error);
                self.connection.close(code.into(), b"control stream broken");
            }
            give_up(peer, &error, &mut send, &mut recv);
        }
    }

    async fn control(&self, send: &mut SendStream, recv: &mut RecvStream) -> Result<()> {
        wire::write_header(send, StreamTag::Control).await?;
        let max_bytes = CONTROL_MESSAGE_BYTES_MAX;
        while let Some(block) = wire::read_block_or_end(recv, "control message", max_bytes).await? {
            let message = Envelope::decode(&block)?;
            drop(block);
            self.listener.service.message(self.peer, message).await;
        }
        Ok(())
    }

    async fn request(&self, send: &mut SendStream, recv: &mut RecvStream) -> Result<()> {
        let body = wire::read_block(recv, "request", REQUEST_BYTES_MAX).await?;
        let reply = self.listener.service.request(self.peer, body).await;
        wire::write_block(send, "reply", &reply, REPLY_BYTES_MAX).await
    }

    async fn fetch(&self, send: &mut SendStream, recv: &mut RecvStream) -> Result<()> {
        let request = wire::read_block(recv, "fetch request", FETCH_REQUEST_BYTES_MAX).await?;
        let (sink, queue) = fetch::queue(&self.budget);
        let service = &self.listener.service;
        let (result, drained) = tokio::join!(service.fetch(self.peer, request, sink), queue.drain(send));
        fetch::write_end(send, drained?, result).await
    }
}

fn give_up(peer: NodeId, error: &Error, send: &mut SendStream, recv: &mut RecvStream) {
    match error.kind() {
        ErrorKind::Retryable => debug!(%peer, %error, "stream ended early"),
        _ => warn!(%peer, %error, "stream given up"),
    }
    let code = close_code(error).into();
    // Either may be over already, which is what we want.
    let _ = send.reset(code);
    let _ = recv.stop(code);
}

fn close_code(error: &Error) -> CloseCode {
    match error.kind() {
        ErrorKind::Limit => CloseCode::Limit,
        ErrorKind::Retryable => CloseCode::Done,
        _ => CloseCode::Protocol,
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a handler panicked");
    }
}

/// The connections that each peer has open to us, oldest first.
#[derive(Default)]
pub(crate) struct Inbound(Mutex<HashMap<NodeId, VecDeque<Connection>>>);

impl Inbound {
    /// A peer that was restarted leaves connections behind which it will never use: the oldest go first.
    fn admit(&self, peer: NodeId, connection: &Connection) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = peers.entry(peer).or_default();
        open.retain(|c| c.close_reason().is_none());
        open.push_back(connection.clone());
        while open.len() > INBOUND_CONNECTIONS_PER_PEER_MAX {
            if let Some(oldest) = open.pop_front() {
                oldest.close(CloseCode::Replaced.into(), b"too many connections");
            }
        }
    }
}
