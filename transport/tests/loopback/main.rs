//! Two or more real endpoints on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that goes wrong")]

mod control;
mod fetch;
mod http;
mod identity;
mod node;
mod request;
mod restart;
mod resume;
mod traffic;
