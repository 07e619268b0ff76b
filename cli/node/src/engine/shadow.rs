//! The source's own copies of the images of a running guest, and what they are.
//!
//! Whatever takes long is done while the guest runs (warm): the copy, the compare with the base, the manifest. Then the
//! copies are brought up to the guest again, until little changes meanwhile, so that little is left for the pause. What
//! was written since the manifest was made is remembered, and only that is cut and hashed again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use form_delta::{
    Extent, Hash, Image, Manifest, Mapped, Refreshed, cut_anew, normalise, refresh_extents, refresh_shadow, same_within,
};
use form_vmm_hooks::Written;

use super::bases::{self, staged_manifest};
use super::build::delta;
use super::hints::{self, Hints};
use super::instance::{LocalInstance, MEMORY, file_name};
use super::layout::{Layout, create_file, make_dir, remove_dir, write_durably};
use super::limits::{WARM_ROUNDS_MAX, WARM_WRITTEN_BYTES_SMALL};
use super::standby;
use crate::error::ApiError;

/// A copy and the live file that it follows.
pub(crate) struct Shadow {
    pub(crate) artifact: String,
    path: PathBuf,
    live: File,
    copy: File,
    /// Of a VMM's memory: at the pause no page has to be mapped that a warm round has read. One that can't be read ends the
    /// node (SIGBUS), and its keeper lets the guest go on. Files that somebody else looks after are read: they may be cut
    /// short.
    mapped: Option<Mapped>,
    base_root: Option<Hash>,
    /// Of the copy, but for what was written `since`.
    manifest: Manifest,
    /// Where the copy was written when the manifest was made; with a base that is where it differs from the base.
    changed: Vec<Extent>,
    since: Vec<Extent>,
    /// The hypervisor said where it differs from the base.
    hinted: bool,
    /// Blocks that no hint has named yet, to be compared all the same.
    sample: Vec<Extent>,
}

/// A copy that does not change any more; its manifest is beside it.
pub(crate) struct Still {
    pub(crate) path: PathBuf,
    /// The base that it was made from.
    pub(crate) base_root: Option<Hash>,
    pub(crate) image: Image,
    pub(crate) manifest: Manifest,
    /// Where it differs from the base; `None` without one.
    pub(crate) changed: Option<Vec<Extent>>,
}

/// Copies of all images of a running instance, nearly equal to them.
pub(crate) struct Warm {
    pub(crate) shadows: Vec<Shadow>,
    /// How often they were brought up to the guest after the first time.
    pub(crate) rounds: u32,
}

/// Makes the copies, each from its base where there is one.
pub(crate) fn warm(
    layout: &Layout,
    source: &LocalInstance,
    staging: &Path,
    bases: &BTreeMap<String, Hash>,
    (hints, written): (&Hints, &Written),
) -> Result<Warm, ApiError> {
    remove_dir(staging).and_then(|()| make_dir(staging)).map_err(|e| ApiError::io("make", staging, &e))?;
    let artifacts = source.images();
    let made = artifacts.iter().map(|artifact| {
        let base = bases.get(artifact).and_then(|root| bases::open(layout, &source.cluster_id, *root));
        match Shadow::make(layout, source, artifact, staging, base, written)? {
            Made::Shadow(shadow) => Ok(shadow),
            Made::Damaged(base) => {
                bases::drop_damaged(layout, &source.cluster_id, &base);
                match Shadow::make(layout, source, artifact, staging, None, &Written::new())? {
                    Made::Shadow(shadow) => Ok(shadow),
                    Made::Damaged(_) => Err(ApiError::internal("make a shadow", "there is no base to be damaged")),
                }
            }
        }
    });
    let mut shadows = made.collect::<Result<Vec<_>, ApiError>>()?;
    for shadow in shadows.iter_mut().filter(|shadow| hints.believes(&shadow.artifact)) {
        shadow.draw_sample()?;
    }
    let (mut rounds, mut before) = (0, u64::MAX);
    while rounds < WARM_ROUNDS_MAX {
        rounds += 1;
        let mut written = 0;
        // Of the others the pause will know what little has changed.
        for shadow in shadows.iter_mut().filter(|shadow| !shadow.hinted) {
            let done = shadow.follow()?;
            written += done.bytes_written;
            shadow.wrote(done.changed);
        }
        // Small enough, or the guest is as fast as we are.
        if written <= WARM_WRITTEN_BYTES_SMALL || written > before / 2 {
            break;
        }
        before = written;
    }
    Ok(Warm { shadows, rounds })
}

/// What became of making one.
enum Made {
    Shadow(Shadow),
    /// The base is not what it should be where the copy, by a hint, would have taken bytes over from it unread.
    Damaged(bases::Base),
}

impl Shadow {
    fn make(
        layout: &Layout,
        source: &LocalInstance,
        artifact: &str,
        staging: &Path,
        mut base: Option<bases::Base>,
        written: &Written,
    ) -> Result<Made, ApiError> {
        let mut damaged = false;
        let path = staging.join(file_name(artifact));
        let copy = match &base {
            Some(base) => standby::start_from(layout, &source.instance_id, artifact, base, &path)?.file,
            None => create_file(&path).map_err(|e| ApiError::io("make", &path, &e))?,
        };
        let live_path = layout.live(&source.instance_id, &source.live).join(file_name(artifact));
        let live = File::open(&live_path).map_err(|e| ApiError::io("open", &live_path, &e))?;
        let hint = base.as_ref().and_then(|_| hints::extents(written, artifact, &live, &copy));
        let hinted = hint.is_some();
        let done = match hint {
            Some(extents) => refresh_extents(&live, &copy, &extents),
            None => refresh_shadow(&live, &copy),
        };
        let changed = done.map_err(|e| delta(artifact, e))?.changed;
        let image = Image::open(&path).map_err(|e| delta(artifact, e))?;
        // The copy was the base: it differs where it was written, and nowhere else.
        let manifest = match &base {
            Some(base) => {
                form_delta::rechunk(&image, &base.manifest, changed.clone()).map_err(|e| delta(artifact, e))?
            }
            None => form_delta::scan(&image),
        };
        if let Some(base) = base.as_ref().filter(|_| hinted) {
            let file = File::open(&base.path).map_err(|e| ApiError::io("open", &base.path, &e))?;
            match form_delta::verify_chunks(&file, &base.manifest, &cut_anew(&base.manifest, &manifest)) {
                Err(error) if error.kind() == form_delta::ErrorKind::Corrupt => damaged = true,
                verified => drop(verified.map_err(|e| delta(artifact, e))?),
            }
        }
        if let Some(base) = base.take_if(|_| damaged) {
            return Ok(Made::Damaged(base));
        }
        let mapped = (artifact == MEMORY && source.has_device()).then(|| Mapped::new(&live, &copy));
        let mapped = mapped.transpose().map_err(|e| delta(artifact, e))?;
        let (artifact, base_root) = (artifact.to_owned(), base.map(|b| b.root));
        let (since, sample) = (Vec::new(), Vec::new());
        let shadow = Self { artifact, path, live, copy, mapped, base_root, manifest, changed, since, hinted, sample };
        Ok(Made::Shadow(shadow))
    }

    /// Draws blocks that the hint calls unchanged, and reads them once: the pause will find them in the page cache.
    fn draw_sample(&mut self) -> Result<(), ApiError> {
        let hinted = if self.hinted { self.changed.as_slice() } else { &[] };
        self.sample = hints::sample(&self.live, &self.copy, hinted).map_err(|e| delta(&self.artifact, e))?;
        Ok(())
    }

    /// As [`Shadow::follow`], when it is known where the live file was written to. True if that was found wrong, and it
    /// was followed without.
    pub(crate) fn follow_hint(&mut self, written: &Written) -> Result<(Refreshed, bool), ApiError> {
        let Some(extents) = hints::extents(written, &self.artifact, &self.live, &self.copy) else {
            return Ok((self.follow()?, false));
        };
        let failed = |e| delta(&self.artifact, e);
        let mut done = refresh_extents(&self.live, &self.copy, &extents).map_err(failed)?;
        if same_within(&self.live, &self.copy, &self.sample).map_err(failed)? {
            return Ok((done, false));
        }
        let again = self.follow()?;
        done.bytes_read += again.bytes_read;
        done.bytes_written += again.bytes_written;
        done.changed.extend(again.changed);
        Ok((done, true))
    }

    /// Brings the copy up to the live file.
    pub(crate) fn follow(&mut self) -> Result<Refreshed, ApiError> {
        let done = match &mut self.mapped {
            Some(mapped) => mapped.refresh(),
            None => refresh_shadow(&self.live, &self.copy),
        };
        done.map_err(|e| delta(&self.artifact, e))
    }

    /// Takes note of where [`Shadow::follow`] has written.
    pub(crate) fn wrote(&mut self, extents: Vec<Extent>) {
        self.since.extend(extents);
    }

    /// The copy is complete: what it is now.
    pub(crate) fn freeze(mut self, staging: &Path) -> Result<Still, ApiError> {
        // Mapped pages are not counted as free memory, and an image lets go of its own.
        self.mapped = None;
        let failed = |e| delta(&self.artifact, e);
        let image = Image::open(&self.path).map_err(failed)?;
        let manifest = form_delta::rechunk(&image, &self.manifest, self.since.clone()).map_err(failed)?;
        let changed = self.base_root.map(|_| normalise([self.changed, self.since].concat()));
        let still = Still { path: self.path, base_root: self.base_root, image, manifest, changed };
        still.write_manifest(staging, &self.artifact)?;
        Ok(still)
    }
}

impl Still {
    /// Puts the manifest beside the image, durably.
    pub(crate) fn write_manifest(&self, staging: &Path, artifact: &str) -> Result<(), ApiError> {
        let path = staged_manifest(staging, artifact);
        write_durably(&path, &self.manifest.encode()).map_err(|e| ApiError::io("write", &path, &e))
    }
}
