//! What the benchmarks are made of.
//!
//! * [`compare`] runs whole updates of each [pair](corpus) of images with each of the [`tools`], measures every process that takes part ([`process`]), and
//!   checks every result.
//! * [`growth`] runs `form delta` on images made for it: of many sizes, and changed more and more. [`targets`] commits such an image between real nodes, to more
//!   and more targets, and [`pause`] real guests that write all the time.
//! * The small benchmarks in `benches/benches/` append [rows](results::Row), each beside its physical limit.
//! * [`bounds`] holds the figures against what was promised, [`report`] writes the tables and [`plot`] the pictures of docs/performance.md.
//!
//! This process itself stays small: what touches images runs in a process of its own ([`yardstick`]), because a child's peak memory, as the kernel counts it,
//! begins with its parent's.

pub mod bounds;
pub mod compare;
pub mod corpus;
pub mod growth;
mod nodes;
pub mod pause;
pub mod plot;
pub mod process;
pub mod report;
pub mod results;
pub mod settings;
mod shape;
pub mod table;
pub mod targets;
pub mod tools;
pub mod yardstick;

/// Whatever went wrong ends a benchmark, with what it was doing.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
