//! What the host gives: a VMM, and ways to write images.

use std::fs::File;

use form_vmm_hooks::Vmm;

use super::{Findings, Patient};
use crate::engine::build::chain;
use crate::engine::instance::LocalInstance;
use crate::engine::lifecycle::vmm_error;
use crate::engine::preflight::vmm_view;
use crate::engine::{saved, standby};
use crate::spec::VmmSpec;

pub(super) async fn vmm(findings: &mut Findings, qemu: &dyn Vmm, patient: &Patient<'_>) {
    let needed = patient.instances.iter().any(|local| matches!(local.spec.vmm, VmmSpec::Qemu(_)));
    let facts = match qemu.host().await {
        Ok(facts) => vmm_view(&facts),
        Err(error) => {
            let error = vmm_error(error);
            match needed {
                true => findings.failed("vmm", &error, "install QEMU"),
                false => findings.note("vmm", error.message, "no instance here needs it; install QEMU before one does"),
            }
            return;
        }
    };
    findings.ok("vmm", format!("{} {}, {}, {}", facts.vmm, facts.version, facts.machine_type, facts.accelerator));
    for local in &patient.instances {
        let was = local.vmm.as_ref().filter(|was| was.vmm == facts.vmm && **was != facts);
        if let Some(was) = was {
            findings.problem(
                "vmm",
                format!(
                    "{} was started by {} {}, and the host has {} now",
                    local.name, was.vmm, was.version, facts.version
                ),
                format!("stop and start it before the next commit: form manage stop --name {}", local.name),
            );
        }
    }
}

/// Whether old VMs can wait in memory while a commit is decided (rule 23).
pub(super) fn memory(findings: &mut Findings, qemu: &dyn Vmm, patient: &Patient<'_>) {
    let second = |local: &LocalInstance| Some((local.name.clone(), saved::second_vm_bytes(local)?));
    let asked: Vec<_> = patient.instances.iter().filter_map(second).collect();
    let Some(free) = qemu.free_memory_bytes().filter(|_| !asked.is_empty()) else { return };
    let needed = asked.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if needed <= free {
        return findings.ok("memory", format!("{} are free: enough for a second VM of each", super::mib(free)));
    }
    let names: Vec<_> = asked.into_iter().map(|(name, _)| name).collect();
    findings.note(
        "memory",
        format!(
            "{} are free, a second VM of each of {} would take {}: unless its spec says otherwise, a commit saves an old VM first for which there is no room",
            super::mib(free),
            names.join(", "),
            super::mib(needed)
        ),
        "that way back is weaker: give the host more memory, or let the spec say what is wanted (way_back)",
    );
}

/// How images are written and copied.
pub(super) fn writing(findings: &mut Findings, patient: &Patient<'_>) {
    match form_delta::Engine::probe() {
        (_, Some(why)) => findings.note(
            "writing",
            format!("io_uring can't be used ({why}): images are written with pwrite, which is slower"),
            "allow it where that is wanted: sysctl kernel.io_uring_disabled=0, and the container's seccomp profile",
        ),
        (_, None) => findings.ok("writing", "io_uring works"),
    }
    match shares_blocks(patient) {
        Ok(true) => findings.ok("writing", "the file system shares blocks: copies of images cost nothing"),
        Ok(false) => {
            let bytes: u64 = patient
                .instances
                .iter()
                .map(|local| standby::allocated_bytes(patient.layout, &local.instance_id))
                .sum();
            findings.ok("writing", format!("no reflinks here: standbys are kept instead, {}", super::mib(bytes)));
        }
        Err(error) => findings.problem(
            "writing",
            format!("no file can be made in {}: {error}", patient.layout.root().display()),
            "see that the file system is mounted for writing, has space, and belongs to the node's user",
        ),
    }
}

/// A clone of a file without a name is tried.
fn shares_blocks(patient: &Patient<'_>) -> Result<bool, String> {
    use std::os::unix::fs::FileExt as _;
    let unnamed = || -> rustix::io::Result<File> {
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
        Ok(rustix::fs::open(patient.layout.root(), flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?.into())
    };
    let (from, to) = match (unnamed(), unnamed()) {
        (Ok(from), Ok(to)) => (from, to),
        // A file system that has no such files (overlayfs, older ones) shares no blocks either.
        (Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR), _) => return Ok(false),
        (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
    };
    from.write_all_at(&[1; 4096], 0).map_err(|e| e.to_string())?;
    let kind = form_delta::clone_file(&from, &to).map_err(|e| chain(&e))?;
    Ok(kind == form_delta::CloneKind::Reflink)
}
