//! Images to manifests, manifests to recipes, recipes to images: what a commit sends, and how it is put together again.
//!
//! A machine's memory and disks are *images*. [`scan`] cuts an image into content-defined chunks and lists them in a [`Manifest`], whose hash (its *root*)
//! names the image. [`diff`] gets the same manifest from a base image in a fraction of the time. [`encode`] writes recipes that turn the base into the new
//! image, in [frames](FrameRef) listed by a [`FrameIndex`]. On the other side frames are checked on arrival ([`FrameIndex::verify`]), wait in a [`Spool`],
//! become a [`Plan`] ([`plan`]), and are written by [`apply`]. A [`DeltaWriter`] puts all of that into one file, which [`open_delta`] reads; an
//! [`ImageIndex`] keeps what is known of an image beside it.
//!
//! What holds throughout:
//!
//! * The incremental manifest is that of a full scan, byte for byte.
//! * The same input gives the same bytes, on any number of threads.
//! * Nothing is decoded before its BLAKE3 is checked, and nothing is allocated before its length is held against `limits`.
//! * Memory of the process grows with an image only by its manifest (36 bytes for some 64 KiB); frozen images are mapped, and no more of them is in memory than
//!   is being worked on, or within `EARLIER_BYTES_MAX` of new bytes. Of files that are [`Mapped`] all that was read is, but the pages are the page cache's.
//! * No network, clock or VM. Every call blocks; call it from a thread of your own.
//!
//! The formats are documented in FORMAT.md beside this crate's Cargo.toml.

mod apply;
mod base;
mod blocks;
mod clone;
mod codec;
mod error;
mod file;
mod hash;
mod image;
pub mod limits;
mod live;
mod manifest;
mod parallel;
mod rebuild;
mod recipe;
mod sample;
mod scan;
mod standby;
mod verify;

pub mod generate;

pub use apply::{Applied, Engine, apply};
pub use base::Base;
pub use blocks::BlockIndex;
pub use clone::{CloneKind, clone_file, clone_image};
pub use error::{Error, ErrorKind, Object, Result};
pub use file::{DeltaWriter, FileIdentity, ImageIndex, open_delta, sent_extents, summarise};
pub use hash::{Hash, ParseHashError};
pub use image::{Extent, Image, normalise};
pub use live::{Mapped, Refreshed, refresh_extents, refresh_shadow};
pub use manifest::{Chunk, Manifest};
pub use rebuild::{Plan, Spool, plan};
pub use recipe::{Encoded, FrameIndex, FrameRef, Share, Totals, VerifiedFrame, encode, encode_moved};
pub use sample::{same_within, sample};
pub use scan::{Diff, Moved, compare, cut_anew, diff, rechunk, rechunk_moved, scan, scan_reference};
pub use standby::Standby;
pub use verify::{verify_chunks, verify_image};
