//! A file that is a copy of the base already, and becomes the new image.

use std::fs::{File, OpenOptions, canonicalize, remove_file};
use std::path::{Path, PathBuf};

use form_delta::compare;
use form_node::{ApiError, ErrorCode};

use super::base::{Base, OpenImage, believed_index, index_path, open_image};
use super::failure;
use super::interrupt::Workplace;
use super::output_file::{on_the_same_file_system, rename_new, sync_directory};
use super::stages::Stages;

/// A standby image that was found to equal the base.
pub(super) struct Standby {
    pub(super) file: File,
    path: PathBuf,
}

impl Standby {
    /// Opens it for writing. Its bytes are compared with the base's, unless an index says what they are.
    pub(super) fn open(
        path: &Path,
        base: &Base,
        bases: &[Base],
        out: &Path,
        stages: &mut Stages,
    ) -> Result<Self, ApiError> {
        // A rename would move a symbolic link, and not the file.
        let path = canonicalize(path).map_err(|error| failure::io("updated", path, &error))?;
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| failure::io("updated", &path, &error))?;
        let opened = open_image(&path)?;
        let refused = |message: String| ApiError::new(ErrorCode::BadRequest, message);
        if bases.iter().any(|base| base.opened.identity.same_file(&opened.identity)) {
            return Err(refused(format!("{} is the base itself", path.display()))
                .remedy("give a copy: the base is read while the standby image changes"));
        }
        if !on_the_same_file_system(&file, out) {
            return Err(refused(format!("{} can't be renamed to {}", path.display(), out.display()))
                .cause("they are on different file systems")
                .remedy("choose an --out on the file system of the standby image"));
        }
        let equal = stages.run("standby", || equals(&opened, base))?;
        if !equal {
            return Err(ApiError::new(ErrorCode::WrongState, format!("{} does not equal the base", path.display()))
                .cause(format!("its bytes are not those of {}", base.opened.path.display()))
                .remedy("copy the base to it, or leave out --standby; it was not touched"));
        }
        Ok(Self { file, path })
    }

    /// From here on it is no copy of the base.
    pub(super) fn begin_changing(&self, workplace: &Workplace) -> Result<(), ApiError> {
        workplace.begin_changing(&self.path).map_err(|error| failure::io("updated", &self.path, &error))?;
        // What it says of the file is over; left there, it would only be passed over.
        let _ = remove_file(index_path(&self.path));
        Ok(())
    }

    /// It is the new image now.
    pub(super) fn publish(&self, out: &Path, workplace: &Workplace) -> Result<(), ApiError> {
        let renamed = workplace.publish(|| rename_new(&self.path, out));
        renamed.map_err(|error| failure::io("made", out, &error))?;
        sync_directory(out)?;
        sync_directory(&self.path)
    }
}

fn equals(standby: &OpenImage, base: &Base) -> Result<bool, ApiError> {
    if let Ok(Some(index)) = believed_index(standby) {
        return Ok(index.manifest.root() == base.manifest.root());
    }
    let (image, of_base) = (&standby.image, &base.opened.image);
    let changed = compare(of_base, image).map_err(|error| failure::of("read", &standby.path, &error))?;
    Ok(image.len_bytes() == of_base.len_bytes() && changed.is_empty())
}
