//! The private copy of a verified image that a VM runs on: what was hashed is what will run.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use form_delta::{Hash, Manifest};
use serde::{Deserialize, Serialize};

use super::bases;
use super::build::delta;
use super::instance::{LocalInstance, MEMORY};
use super::layout::Layout;
use super::standby;
use crate::error::{ApiError, ErrorCode};

/// A file as it was when it was hashed. While this is the same it is that file, and nobody has written to it. Not its device: that has another
/// number when its host has started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hashed {
    inode: u64,
    len_bytes: u64,
    /// Of its last change, whatever was changed; nobody can set it.
    changed_s: i64,
    changed_ns: i64,
}

impl Hashed {
    pub(crate) fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        let (inode, len_bytes) = (meta.ino(), meta.len());
        Ok(Self { inode, len_bytes, changed_s: meta.ctime(), changed_ns: meta.ctime_nsec() })
    }

    pub(crate) fn at(path: &Path) -> std::io::Result<Self> {
        File::open(path).and_then(|file| Self::of(&file))
    }

    /// Refuses a file that is not what was hashed any more.
    pub(crate) fn check(&self, name: &str, path: &Path) -> Result<(), ApiError> {
        let now = Self::at(path).map_err(|e| ApiError::io("look at", path, &e))?;
        match now == *self {
            true => Ok(()),
            false => Err(ApiError::new(ErrorCode::Aborted, format!("{name} was changed after it had been verified"))
                .cause(path.display())
                .remedy("find out what writes to that node's data directory, then commit again")),
        }
    }
}

/// What is copied, and to where.
pub(crate) struct LiveCopy {
    pub(crate) layout: Layout,
    pub(crate) local: LocalInstance,
    pub(crate) artifact: String,
    /// What the commit names.
    pub(crate) root: Hash,
    /// The base that the image was built from: a standby of it saves the copy.
    pub(crate) base: Option<Hash>,
    pub(crate) image: PathBuf,
    pub(crate) manifest: PathBuf,
    pub(crate) to: PathBuf,
}

impl LiveCopy {
    /// A standby of the base gets what changed, and that is read again; anything else is copied, and read again in full.
    pub(crate) fn make(&self) -> Result<Hashed, ApiError> {
        let (name, instance) = (self.artifact.as_str(), &self.local.instance_id);
        let manifest = manifest(name, &self.manifest, self.root)?;
        let base = self.base.and_then(|root| bases::open(&self.layout, &self.local.cluster_id, root));
        let standby = base.and_then(|base| {
            let changed = manifest.changed_since(&base.manifest);
            Some((standby::take(&self.layout, instance, name, base.root, &self.to)?, changed))
        });
        let image = File::open(&self.image).map_err(|e| ApiError::io("open", &self.image, &e))?;
        let (file, changed) = match standby {
            Some((file, changed)) => {
                form_delta::refresh_extents(&image, &file, &changed).map_err(|e| delta(name, e))?;
                (file, Some(changed))
            }
            None => {
                let allocated = image.metadata().map_err(|e| ApiError::io("look at", &self.image, &e))?.blocks() * 512;
                standby::make_room(&self.layout, instance, name, allocated)?;
                form_delta::clone_image(&self.image, &self.to).map_err(|e| delta(name, e))?;
                (File::open(&self.to).map_err(|e| ApiError::io("open", &self.to, &e))?, None)
            }
        };
        if name != MEMORY || !self.local.has_device() {
            // A host that is lost after the commit boots from this disk; its memory is gone with it in any case.
            file.sync_all().map_err(|e| ApiError::io("sync", &self.to, &e))?;
        }
        // First: what changes while it is being hashed has changed since.
        let hashed = Hashed::of(&file).map_err(|e| ApiError::io("look at", &self.to, &e))?;
        let verified = match changed {
            // Every other byte of this very file was hashed when it became a standby, and it was not touched since.
            Some(changed) => form_delta::verify_chunks(&file, &manifest, &changed).map(drop),
            None => form_delta::verify_image(&file, &manifest),
        };
        verified.map(|()| hashed).map_err(|e| delta(name, e))
    }
}

/// Reads an image in full: it is what its manifest says, and that is the one the commit names.
pub(crate) fn verify(name: &str, image: &File, manifest_path: &Path, root: Hash) -> Result<(), ApiError> {
    form_delta::verify_image(image, &manifest(name, manifest_path, root)?).map_err(|e| delta(name, e))
}

fn manifest(name: &str, path: &Path, root: Hash) -> Result<Manifest, ApiError> {
    let bytes = std::fs::read(path).map_err(|e| ApiError::io("read", path, &e))?;
    let manifest = Manifest::decode(&bytes).map_err(|e| delta(name, e))?;
    match manifest.root() == root {
        true => Ok(manifest),
        false => Err(ApiError::new(ErrorCode::Aborted, format!("{name} is not the commit's"))),
    }
}
