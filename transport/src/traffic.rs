//! Counts what crosses the socket, per peer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use quinn::Connection;

use crate::NodeId;

/// UDP payload exchanged with one peer: handshakes, acknowledgements and retransmissions included, IP and
/// UDP headers (28 or 48 bytes a datagram) not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketBytes {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
}

impl SocketBytes {
    fn add(&mut self, connection: &Connection) {
        let stats = connection.stats();
        self.sent += stats.udp_tx.bytes;
        self.received += stats.udp_rx.bytes;
        self.datagrams_sent += stats.udp_tx.datagrams;
    }
}

/// The counters of all peers.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<HashMap<NodeId, Peer>>);

#[derive(Debug, Default)]
struct Peer {
    /// What connections that are over have carried.
    past: SocketBytes,
    live: Vec<Connection>,
}

impl Peer {
    fn settle(&mut self) {
        let past = &mut self.past;
        self.live.retain(|connection| {
            let over = connection.close_reason().is_some();
            if over {
                past.add(connection);
            }
            !over
        });
    }
}

impl Traffic {
    /// Counts `connection` from its first packet on.
    pub(crate) fn watch(&self, peer: NodeId, connection: &Connection) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = peers.entry(peer).or_default();
        entry.settle();
        entry.live.push(connection.clone());
    }

    pub(crate) fn of(&self, peer: NodeId) -> SocketBytes {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = peers.get_mut(&peer) else {
            return SocketBytes::default();
        };
        entry.settle();
        let mut total = entry.past;
        entry.live.iter().for_each(|c| total.add(c));
        total
    }
}
