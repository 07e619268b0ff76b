//! Real nodes, real guests: what `make demo` and the end-to-end tests are made of.
//!
//! A [`Scene`] is everything that a run has on this machine; whatever way the run ends, nothing of it is left. A
//! [`Cluster`] is nodes in a scene, a [`Guest`] a shell in a guest, [`Marks`] what makes one guest recognisable.
//! Nothing here reaches into a node: all goes through the `form` program, as a user's would.

mod assets;
mod cluster;
mod commit;
mod disks;
mod error;
mod faulty_qemu;
mod form;
mod guest;
mod http;
mod marks;
mod mutants;
mod network;
mod node;
mod rest;
mod room;
mod scene;
mod serial;
mod signals;

pub use assets::Assets;
pub use cluster::{Cluster, Plan};
pub use commit::{Commit, Ended};
pub use disks::Disks;
pub use error::{Context, Error, Result};
pub use faulty_qemu::FaultyQemu;
pub use form::{Answer, Form, Refusal};
pub use guest::Guest;
pub use http::{Reply, send};
pub use marks::Marks;
pub use mutants::{Mutant, Mutants};
pub use network::{Network, Trouble};
pub use node::{Node, NodeOptions};
pub use rest::at_rest;
pub use room::Room;
pub use scene::Scene;
