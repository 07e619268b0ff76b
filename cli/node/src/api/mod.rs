//! HTTP: what a request must be before anyone acts on it.
//!
//! [`router`] is made from one table of routes ([`routes`]), and so is the OpenAPI document. A request for an instance
//! or attempt of another node is passed on as it came, before its signature is looked at: the node that acts is the
//! one that checks.

mod answer;
mod attempts;
mod commit;
mod console;
pub mod flight;
mod forward;
mod grants;
pub mod health;
mod incoming;
mod instances;
mod limits;
mod openapi;
mod routes;
mod serve;
mod signature;
pub mod types;
mod views;

pub use commit::signed_body;
pub use limits::BODY_BYTES_MAX;
pub use routes::router;
pub use serve::serve_connection;
