mod body;
mod encode;
mod frame;
mod index;
mod record;
mod source;
mod totals;
mod verified;

pub(crate) use body::{Coding, Decoder};
pub use encode::{Encoded, encode};
pub(crate) use frame::{Located, read_frame};
pub use index::{FrameIndex, FrameRef};
pub(crate) use record::{BodyPlace, Record};
pub use totals::{Share, Totals};
pub use verified::VerifiedFrame;
