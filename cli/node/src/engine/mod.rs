//! The engine: carries out what the protocol's machines ask for.
//!
//! [`driver`] is the one loop: inputs go into the machines, their outputs become effects, an effect's end is an
//! input. [`coordinate`] has the coordinator's effects, [`participate`] the participants'; below them [`capture`],
//! [`target`] and [`source`] move images and VMs.

mod again;
mod attempt;
mod attempts;
mod ballast;
mod bases;
mod build;
mod capture;
mod coordinate;
mod core_impl;
mod db;
mod doctor;
mod driver;
mod encode;
mod ending;
mod events;
mod flight;
mod hints;
mod incoming;
mod instance;
mod layout;
mod leftovers;
mod lifecycle;
mod limits;
mod live_copy;
mod node;
mod offer;
mod participate;
mod peer;
mod preflight;
mod probation;
mod recover;
mod run;
mod saved;
mod seed;
mod serve;
mod shadow;
mod silence;
mod source;
mod space;
mod standby;
mod target;
mod traces;
mod vms;
mod work;

pub use doctor::doctor;
pub(crate) use layout::write_durably;
pub(crate) use node::{Node, blocking};
pub use run::{InitOptions, Initialised, init, remove, run, run_on};
