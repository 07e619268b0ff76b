//! HTTP to a node: requests, signed requests, event streams and the console's upgrade.

mod connection;
mod console;
mod events;
mod limits;
mod request;
mod signer;
mod sse;
mod url;

pub(crate) use events::EventStream;
pub(crate) use request::{Client, Patience, segment};
pub(crate) use signer::{Signer, Subject};
pub(crate) use url::NodeUrl;
