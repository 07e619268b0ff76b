//! Changed-block hints in a commit: which recordings of writes begin and end when, and how far they are believed.
//!
//! A recording since a base is named by that base's root and the attempt that made it. It is cut twice in an attempt: when
//! the shadow is made, and during the pause. What was written before the first cut is all that the shadow has to be brought
//! up to, what was written between the two all that the pause has to copy. Afterwards the last one is the new base's, or
//! all of them together are the old one's again. A process that was restored, or one whose recordings have a gap, has none:
//! then everything is compared.
//!
//! Each commit compares some blocks that the hint calls unchanged. One that has changed convicts the hint: that commit
//! compares in full, and this disk is never believed again.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use form_delta::{Extent, Hash};
use form_proto::Outcome;
use form_vmm_hooks::{Cut, Cuts, Keep, Keeps, Mark, Vm, Written};

use super::Node;
use super::attempt::Attempt;
use super::instance::LocalInstance;
use super::limits::SAMPLED_BLOCKS;
use crate::error::ApiError;

/// What one attempt does with the recordings of its source.
#[derive(Clone, Debug)]
pub(crate) struct Hints {
    attempt: String,
    /// The disks that are believed, and the recording since the base of each, if it should have one.
    disks: BTreeMap<String, Option<Mark>>,
}

fn since_base(root: &str, attempt: &str) -> Mark {
    Mark::new(format_args!("{root}-{attempt}"))
}

impl Hints {
    /// `base_attempt` made the commit that `bases` are of.
    pub(crate) fn new(
        attempt: &str,
        source: &LocalInstance,
        bases: &BTreeMap<String, Hash>,
        base_attempt: Option<&str>,
    ) -> Self {
        let believed = source.spec.disks.iter().filter(|disk| source.believes(&disk.name));
        let since = |disk: &str| Some(since_base(&bases.get(disk)?.to_string(), base_attempt?));
        let disks = believed.map(|disk| (disk.name.clone(), since(&disk.name))).collect();
        Self { attempt: attempt.to_owned(), disks }
    }

    pub(crate) fn believes(&self, artifact: &str) -> bool {
        self.disks.contains_key(artifact)
    }

    fn warm(&self) -> Mark {
        Mark::new(format_args!("{}-warm", self.attempt))
    }

    fn pause(&self) -> Mark {
        Mark::new(format_args!("{}-pause", self.attempt))
    }

    /// From the base to the shadow.
    pub(crate) fn warm_cuts(&self) -> Cuts {
        let cut = |since: &Option<Mark>| Cut { since: since.clone(), next: self.warm() };
        self.disks.iter().map(|(disk, since)| (disk.clone(), cut(since))).collect()
    }

    /// From the shadow to the pause.
    pub(crate) fn pause_cuts(&self) -> Cuts {
        let cut = Cut { since: Some(self.warm()), next: self.pause() };
        self.disks.keys().map(|disk| (disk.clone(), cut.clone())).collect()
    }

    fn keeps(&self, outcome: Outcome, roots: &BTreeMap<String, String>) -> Keeps {
        let keep = |(disk, since): (&String, &Option<Mark>)| {
            let keep = match (outcome, since) {
                (Outcome::Committed, _) => {
                    Keep { kept: since_base(roots.get(disk)?, &self.attempt), chain: vec![self.pause()] }
                }
                (Outcome::Aborted, Some(since)) => {
                    Keep { kept: since.clone(), chain: vec![since.clone(), self.warm(), self.pause()] }
                }
                (Outcome::Aborted, None) => return None,
            };
            Some((disk.clone(), keep))
        };
        self.disks.iter().filter_map(keep).collect()
    }
}

/// The attempt is decided, and its capture has ended: its recordings become one, before another attempt of the source
/// can begin. Nothing depends on it. Whoever calls this holds `capturing`; the second call does nothing.
pub(crate) async fn settle(node: &Node, attempt: &Attempt, outcome: Outcome) {
    if attempt.hints_settled.swap(true, Ordering::AcqRel) {
        return;
    }
    let Some(hints) = attempt.hints.get() else { return };
    let Some(vm) = node.vms.current(&attempt.record.source_instance) else { return };
    let roots = attempt.capture.get().map(|capture| capture.commit.artifacts.as_slice()).unwrap_or_default();
    let roots = roots.iter().map(|artifact| (artifact.name.clone(), artifact.root.to_string())).collect();
    vm.keep(&hints.keeps(outcome, &roots)).await;
}

/// A target was restored from these images, and has not run since: what it writes is recorded from the first write on.
pub(crate) async fn begin(vm: &Arc<dyn Vm>, local: &LocalInstance, roots: &BTreeMap<String, String>, attempt: &str) {
    let disks = local.spec.disks.iter().filter(|disk| local.believes(&disk.name));
    let cut = |root: &String| Cut { since: None, next: since_base(root, attempt) };
    let cuts = disks.filter_map(|disk| Some((disk.name.clone(), cut(roots.get(&disk.name)?)))).collect();
    vm.cut(&cuts).await;
}

/// Where a disk was written to; `None` if that is not known, or can't be of a file of that length, or of one and its copy.
pub(crate) fn extents(written: &Written, disk: &str, live: &File, copy: &File) -> Option<Vec<Extent>> {
    let len_bytes = live.metadata().ok()?.len();
    if copy.metadata().ok()?.len() != len_bytes {
        return None;
    }
    let extents: Vec<_> = written.get(disk)?.iter().map(|range| Extent::new(range.start, range.end)).collect();
    extents.iter().all(|extent| extent.start <= extent.end && extent.end <= len_bytes).then_some(extents)
}

/// A hint of these disks was wrong: none of theirs is used again, by this daemon or a later one.
pub(crate) fn disbelieve(node: &Node, instance: &str, disks: Vec<String>) -> Result<(), ApiError> {
    if disks.is_empty() {
        return Ok(());
    }
    let mut local = node.local(instance)?;
    tracing::error!(
        instance = local.name,
        ?disks,
        "a changed block was not among those that the hypervisor said: these disks are compared in full from now on"
    );
    local.disbelieved.extend(disks);
    node.db.put_instance(&local)
}

/// Some blocks that are to be compared although they lie outside `hinted`, of a live file and a copy that was brought up to
/// it. They are read once now: the pause will find them in the page cache.
pub(crate) fn sample(live: &File, copy: &File, hinted: &[Extent]) -> form_delta::Result<Vec<Extent>> {
    let seed = getrandom::u64().unwrap_or_default();
    let drawn = form_delta::sample(live, copy, hinted, SAMPLED_BLOCKS, seed)?;
    for block in &drawn {
        form_delta::same_within(live, copy, std::slice::from_ref(block))?;
    }
    Ok(drawn)
}
