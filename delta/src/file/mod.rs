//! What is kept in files of its own: a whole delta, and what is known of an image.

mod delta;
mod image_index;
mod summary;

pub use delta::{DeltaWriter, open_delta};
pub use image_index::{FileIdentity, ImageIndex};
pub use summary::{sent_extents, summarise};
