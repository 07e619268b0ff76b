//! HTTP.

pub mod types;
