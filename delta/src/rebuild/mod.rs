mod plan;
mod spool;

pub use plan::{Plan, plan};
pub use spool::Spool;
