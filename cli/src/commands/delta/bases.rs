//! The bases of a delta, as the engine takes them.

use std::fs::File;
use std::path::{Path, PathBuf};

use form_delta::limits::BASES_MAX;
use form_delta::{Applied, BlockIndex, Engine, FrameIndex, Hash, Plan, Spool, apply, plan};
use form_node::{ApiError, ErrorCode};

use super::base::{Base, Blocks};
use super::stages::Stages;
use crate::output::Output;

/// The bases, the artifact's own older image first.
pub(super) struct Bases(Vec<Base>);

impl Bases {
    /// Opens all of them.
    pub(super) fn open(
        paths: &[PathBuf],
        blocks: Blocks,
        stages: &mut Stages,
        output: Output,
    ) -> Result<Self, ApiError> {
        if paths.len() > BASES_MAX {
            let message = format!("{} bases: a delta stands on at most {BASES_MAX}", paths.len());
            return Err(
                ApiError::new(ErrorCode::BadRequest, message).remedy("name those that share most with the new image")
            );
        }
        let open = |path: &PathBuf| Base::open(path, blocks, stages, output);
        Ok(Self(paths.iter().map(open).collect::<Result<_, _>>()?))
    }

    pub(super) fn all(&self) -> &[Base] {
        &self.0
    }

    pub(super) fn must_be_as_before(&self) -> Result<(), ApiError> {
        self.0.iter().try_for_each(|base| base.opened.must_be_as_before())
    }

    /// The artifact's own older image.
    pub(super) fn first(&self) -> Option<&Base> {
        self.0.first()
    }

    /// Where the blocks of the first stand, if that is known: for who has read that, and is done with it.
    pub(super) fn take_blocks(&mut self) -> Option<BlockIndex> {
        self.0.first_mut()?.blocks.take()
    }

    /// As an encoder takes them.
    pub(super) fn for_encoder(&self) -> Vec<form_delta::Base<'_>> {
        let bases = self.0.iter().map(|base| form_delta::Base {
            image: &base.opened.image,
            manifest: &base.manifest,
            blocks: base.blocks.as_ref(),
        });
        bases.collect()
    }

    pub(super) fn plan(&self, spool: &Spool) -> form_delta::Result<Plan> {
        let manifests: Vec<_> = self.0.iter().map(|base| &base.manifest).collect();
        plan(spool.index(), spool, &manifests)
    }

    pub(super) fn apply(
        &self,
        plan: &Plan,
        spool: &Spool,
        out: &File,
        engine: Engine,
        progress: &mut dyn FnMut(u64, u64),
    ) -> form_delta::Result<Applied> {
        let images: Vec<_> = self.0.iter().map(|base| &base.opened.image).collect();
        apply(plan, spool, &images, out, engine, progress)
    }

    /// Puts the bases into the order in which a delta names them, and refuses any others.
    pub(super) fn in_order_of(self, index: &FrameIndex, delta: &Path) -> Result<Self, ApiError> {
        let wanted = &index.base_roots;
        let mut given = self.0;
        let mut ordered = Vec::with_capacity(wanted.len());
        for root in wanted {
            match given.iter().position(|base| base.manifest.root() == *root) {
                Some(found) => ordered.push(given.swap_remove(found)),
                None => return Err(wrong_bases(delta, wanted, &ordered, &given)),
            }
        }
        if !given.is_empty() {
            return Err(wrong_bases(delta, wanted, &ordered, &given));
        }
        Ok(Self(ordered))
    }
}

fn wrong_bases(delta: &Path, wanted: &[Hash], right: &[Base], others: &[Base]) -> ApiError {
    let missing: Vec<String> = wanted.iter().skip(right.len()).map(Hash::to_string).collect();
    let given: Vec<String> =
        others.iter().map(|base| format!("{} is {}", base.opened.path.display(), base.manifest.root())).collect();
    let wants =
        if missing.is_empty() { "no other base".to_owned() } else { format!("the base {}", missing.join(" and ")) };
    let has = match (given.is_empty(), right.is_empty()) {
        (true, true) => "none was given".to_owned(),
        (true, false) => "no other was given".to_owned(),
        (false, _) => given.join(", "),
    };
    ApiError::new(ErrorCode::WrongState, format!("{} is for other bases", delta.display()))
        .cause(format!("it wants {wants}; {has}"))
        .remedy("give exactly the images that it was made against, unchanged since: form delta info names their roots")
}
