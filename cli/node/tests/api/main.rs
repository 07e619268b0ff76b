//! The HTTP API over loopback, with a node behind it that only notes what it was asked.

mod client;
mod documents;
mod fake;
mod forwarded;
mod inputs;
mod rights;
mod signatures;
mod streams;
