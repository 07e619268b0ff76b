//! Every limit of this crate. A length from a peer is compared with one of these before memory is taken.

use std::time::Duration;

/// One message on a control stream: an [`Offer`](crate::Offer) is the largest, plus its envelope.
pub const CONTROL_MESSAGE_BYTES_MAX: u32 = OFFER_BYTES_MAX + 64 * 1024;
/// One request on a request stream.
pub const REQUEST_BYTES_MAX: u32 = 1024 * 1024;
/// The reply to a request.
pub const REPLY_BYTES_MAX: u32 = 1024 * 1024;
/// The request that opens a bulk fetch: its ranges fit with room to spare.
pub const FETCH_REQUEST_BYTES_MAX: u32 = 16 * 1024;
/// One item of a bulk fetch: a frame, and what the two ends put before it.
pub const FETCH_ITEM_BYTES_MAX: u32 = form_delta::limits::FRAME_BYTES_MAX + 256;
/// The text with which a peer explains that a fetch failed.
pub const FETCH_FAILURE_BYTES_MAX: u32 = 4 * 1024;
/// Bytes of items that the serving end of a connection reads ahead for its fetches, outside QUIC's own windows.
pub const FETCH_IN_FLIGHT_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Fetches that one connection has under way at a time; further ones wait. Each has one item in memory. What bounds
/// them must not be taken between an item's head and its body: one that waits there could fill the window with bytes
/// that nobody reads, and those who do not wait would starve.
pub const FETCHES_MAX: usize = 4;
/// Ranges of frame numbers in one fetch request; what is missing beyond them is asked for next.
pub const FRAME_RANGES_MAX: usize = 1024;
/// A piece of a frame index, as an item of a bulk fetch.
pub const INDEX_PIECE_BYTES: usize = 1024 * 1024;
/// Tries of a fetch, one after the other, that may end without having brought anything.
pub const FETCH_RETRIES_MAX: u32 = 6;
/// The pause after the first of them; each further one is twice as long, up to [`FETCH_BACKOFF_MAX`].
pub const FETCH_BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest pause before a fetch is tried again.
pub const FETCH_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Bytes per second that a connection's receive window is made for: 10 Gbit/s.
pub const BANDWIDTH_BYTES_PER_S: u64 = 1_250_000_000;
/// The smallest receive window, for round trips of up to 2 ms. Up to here all of it stays in the CPU's caches and, in
/// datagrams of 1452 bytes, below the 2048 pieces from which on quinn copies them together (measured: 8 %).
pub const RECEIVE_WINDOW_BYTES_MIN: u32 = 2560 * 1024;
/// The largest, for round trips of 13 ms and more; also what one stream may send ahead of its reader.
pub const RECEIVE_WINDOW_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// The same for a peer that has shown its key but is not yet known to be trusted.
pub const UNTRUSTED_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes that a connection keeps until the peer has acknowledged them.
pub const SEND_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Largest UDP payload that is tried on a path. Ten of these, what quinn hands over at a time, still fit in the
/// 64 KiB that it takes: with 6550 and more it would refuse, and each datagram would fall back to 1200 bytes.
pub const DATAGRAM_BYTES_MAX: u16 = 6500;
/// Bytes that may be on their way before anything was acknowledged: ten datagrams of the largest kind, as RFC 9002 has
/// it. With its 14,720 bytes, two of those would already stop everything else, farewells included.
pub const INITIAL_WINDOW_BYTES: u64 = 10 * DATAGRAM_BYTES_MAX as u64;
/// Packets that are acknowledged by one acknowledgement, where packets come densely.
pub const PACKETS_PER_ACK: u32 = 32;
/// How long an acknowledgement waits for more packets.
pub const ACK_DELAY_MAX: Duration = Duration::from_millis(2);
/// Each of the UDP socket's buffers in the kernel, where the system lets us.
pub const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Streams that a peer may have open at once on one connection.
pub const STREAMS_MAX: u32 = 128;
/// Connections that one peer may have open to us; one more closes its oldest.
pub const INBOUND_CONNECTIONS_PER_PEER_MAX: usize = 4;
/// Peers that may be between their first packet and our trust in them.
pub const HANDSHAKES_MAX: usize = 64;

/// From the first packet to a connection on which both ends trust each other.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing arrives for this long is dead. That is a long time for a busy host to run none of our
/// threads; and if it was busy after all, a fetch goes on where it stopped, and messages and requests are sent again.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// A quiet connection is probed this often; well below [`IDLE_TIMEOUT`], so that some probes may get lost.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long closing waits for handlers that are still running, before it drops them.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// How long closing then stays to repeat its farewell to peers that missed it.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// A node key file; a PKCS#8 Ed25519 key has 83 bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 4 * 1024;

/// An encoded [`Commit`](crate::Commit).
pub const COMMIT_BYTES_MAX: u32 = 64 * 1024;
/// An encoded [`Offer`](crate::Offer).
pub const OFFER_BYTES_MAX: u32 = 24 * 1024 * 1024;
/// The frame index of one artifact inside an offer: as many frames as `form-delta` allows, 36 bytes each.
pub const FRAME_INDEX_BYTES_MAX: u32 = 36 * form_delta::limits::FRAMES_MAX + 4 * 1024;
/// Artifacts of one commit.
pub const ARTIFACTS_MAX: usize = 64;
/// Name of an artifact.
pub const ARTIFACT_NAME_BYTES_MAX: usize = 32;
/// Ids of clusters and instances.
pub const ID_BYTES_MAX: usize = 64;
/// A commit's description.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;
/// The signed request's message inside a commit.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The body that a commit's request was signed with, inside an offer.
pub const REQUEST_BODY_BYTES_MAX: u32 = 256 * 1024;
/// The host facts inside a commit.
pub const VMM_BYTES_MAX: usize = 4 * 1024;
