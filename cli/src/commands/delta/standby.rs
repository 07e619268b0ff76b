//! A file that is a copy of the base already, and becomes the new image.

use std::fs::{File, canonicalize, remove_file};
use std::path::{Path, PathBuf};

use form_delta::Plan;
use form_node::{ApiError, ErrorCode};

use super::base::{Base, OpenImage, believed_index, index_path, opened_image, sampled};
use super::failure;
use super::interrupt::Workplace;
use super::output_file::{directory, on_the_same_file_system, rename_new, sync_directory};
use super::stages::Stages;

/// A standby image that is known, or was found, to equal the base.
pub(super) struct Standby {
    standby: form_delta::Standby,
    path: PathBuf,
    /// How it was found out.
    pub(super) trusted: Trusted,
}

/// What says that a standby image equals the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trusted {
    /// Its record, or its index, and a sample.
    Record,
    /// All its bytes were compared.
    Compare,
}

impl Standby {
    /// Opens it for writing. Its bytes are compared with the base's, unless its record or its index says what they are.
    pub(super) fn open(
        path: &Path,
        base: &Base,
        bases: &[Base],
        out: &Path,
        stages: &mut Stages,
    ) -> Result<Self, ApiError> {
        // A rename would move a symbolic link, and not the file.
        let path = canonicalize(path).map_err(|error| failure::io("updated", path, &error))?;
        let mut standby =
            form_delta::Standby::open_existing(&path).map_err(|error| failure::of("updated", &path, &error))?;
        let opened = opened_standby(&path, &standby, bases)?;
        if !on_the_same_file_system(standby.file(), out) {
            return Err(ApiError::new(
                ErrorCode::BadRequest,
                format!("{} can't be renamed to {}", path.display(), out.display()),
            )
            .cause("they are on different file systems")
            .remedy("choose an --out on the file system of the standby image"));
        }
        let trusted = stages.run("standby", || equals(&mut standby, opened, base))?;
        let Some(trusted) = trusted else {
            return Err(no_copy(&path, base).remedy("copy the base to it, or leave out --standby; it was not touched"));
        };
        Ok(Self { standby, path, trusted })
    }

    /// What its record said of it was wrong, as the bytes show that were made of it.
    pub(super) fn is_no_copy(&self, base: &Base) -> ApiError {
        no_copy(&self.path, base)
    }

    /// The file to write to.
    pub(super) fn file(&self) -> &File {
        self.standby.file()
    }

    /// From here on it is no copy of the base.
    pub(super) fn begin_changing(&mut self, base: &Base, plan: &Plan, workplace: &Workplace) -> Result<(), ApiError> {
        self.standby
            .begin_changing(&base.manifest, plan.manifest(), plan.made())
            .map_err(|error| failure::of("updated", &self.path, &error))?;
        workplace.begin_changing(&self.path).map_err(|error| failure::io("updated", &self.path, &error))?;
        // What it says of the file is over; left there, it would only be passed over.
        let _ = remove_file(index_path(&self.path));
        Ok(())
    }

    /// It is the new image now.
    pub(super) fn publish(self, out: &Path, workplace: &Workplace) -> Result<(), ApiError> {
        let renamed = workplace.publish(|| rename_new(&self.path, out));
        renamed.map_err(|error| failure::io("made", out, &error))?;
        let is_elsewhere = directory(&self.path).canonicalize().ok() != directory(out).canonicalize().ok();
        self.standby.renamed().map_err(|error| failure::of("updated", &self.path, &error))?;
        if is_elsewhere {
            sync_directory(&self.path)?;
        }
        sync_directory(out)
    }
}

/// Its bytes, if it is none of the bases.
pub(super) fn opened_standby(
    path: &Path,
    standby: &form_delta::Standby,
    bases: &[Base],
) -> Result<OpenImage, ApiError> {
    let file = standby.file().try_clone().map_err(|error| failure::io("updated", path, &error))?;
    let opened = opened_image(path, file)?;
    if bases.iter().any(|base| base.opened.identity.same_file(&opened.identity)) {
        return Err(ApiError::new(ErrorCode::BadRequest, format!("{} is the base itself", path.display()))
            .remedy("give a copy: the base is read while the standby image changes"));
    }
    Ok(opened)
}

fn no_copy(path: &Path, base: &Base) -> ApiError {
    ApiError::new(ErrorCode::WrongState, format!("{} does not equal the base", path.display()))
        .cause(format!("its bytes are not those of {}", base.opened.path.display()))
}

fn equals(standby: &mut form_delta::Standby, opened: OpenImage, base: &Base) -> Result<Option<Trusted>, ApiError> {
    let root = base.manifest.root();
    if standby.root() == Some(root) {
        if sampled(&opened, &base.manifest).is_ok() {
            return Ok(Some(Trusted::Record));
        }
        standby.forget().map_err(|error| failure::of("updated", &opened.path, &error))?;
    }
    if let Ok(Some(index)) = believed_index(&opened) {
        return Ok((index.manifest.root() == root).then_some(Trusted::Record));
    }
    // It may be written to from here on, and is mapped no more.
    let path = opened.path.clone();
    drop(opened);
    let equal = standby.equals(&base.opened.image, &base.opened.file, &base.manifest);
    Ok(equal.map_err(|error| failure::of("read", &path, &error))?.then_some(Trusted::Compare))
}
