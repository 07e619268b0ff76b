//! The node: what runs on every host and carries commits.
//!
//! Data flows one way: [`api`] checks a request and asks [`Core`] for it; the engine decides through
//! `form-proto` and acts; [`store`] holds what the cluster shares and is the only commit point.

pub mod api;
pub mod auth;
mod config;
mod core;
mod engine;
mod error;
pub mod spec;
pub mod store;

pub use crate::core::{Core, Signed};
pub use engine::{InitOptions, Initialised, doctor, init, remove, run, run_on};
pub use error::{ApiError, ErrorCode};
pub use form_vmm_hooks::keeper::{KeeperCommand, run as keep};
