mod plan;
mod spool;

pub use plan::{Operation, OperationKind, Plan, plan};
pub use spool::Spool;
