//! Instances and their processes: does what should run run, and does nothing else?

use std::collections::BTreeSet;

use form_vmm_hooks::VmState;

use super::{Findings, Patient};
use crate::engine::instance::LocalInstance;
use crate::spec::VmmSpec;
use crate::store::InstanceStatus;

/// A VM process, as the kernel shows it.
struct Process {
    pid: u32,
    uuid: String,
}

/// QEMU processes whose files lie in this data directory, by the `-uuid` that they were started with.
fn processes(patient: &Patient<'_>) -> Vec<Process> {
    let Ok(root) = patient.layout.instances().canonicalize() else { return Vec::new() };
    let root = root.to_string_lossy().into_owned();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split('\0');
        let uuid = words.clone().skip_while(|word| *word != "-uuid").nth(1)?.to_owned();
        words.any(|word| word.contains(&root)).then_some(Process { pid, uuid })
    });
    found.collect()
}

fn uuid(patient: &Patient<'_>, local: &LocalInstance, live: &str) -> String {
    local.machine(patient.layout, live, true).uuid
}

/// Each instance that should run runs.
pub(super) async fn instances(findings: &mut Findings, patient: &Patient<'_>) {
    let Some(store) = &patient.store else { return };
    let processes = processes(patient);
    let mut fine = 0;
    for local in &patient.instances {
        let name = &local.name;
        let status = match store.instance(&local.instance_id).await {
            Ok(Some(record)) => record.status,
            Ok(None) => {
                findings.problem(
                    "instances",
                    format!("{name} is on this node, and the state store does not know it"),
                    "bring back the store that this node knew",
                );
                continue;
            }
            // Said of the store already.
            Err(_) => continue,
        };
        let should_run = status == InstanceStatus::Started;
        if status == InstanceStatus::CriticalError {
            findings.problem(
                "instances",
                format!("{name} has a VM that did not answer when its node started"),
                format!(
                    "form manage start --name {name} asks it again; if it never answers, end its process and start it"
                ),
            );
        }
        if patient.participants.iter().any(|p| p.instance_id == local.instance_id) {
            // Paused on purpose: said of what is in flight.
            continue;
        }
        let there = match patient.node {
            Some(node) => match node.vms.current(&local.instance_id) {
                Some(vm) => vm.state().await.unwrap_or(VmState::Gone),
                None => VmState::Gone,
            },
            // A machine of files is no process; a node that does not run can't ask a VM what it does.
            None if matches!(local.spec.vmm, VmmSpec::Files(_)) => VmState::Running,
            None => match processes.iter().any(|p| p.uuid == uuid(patient, local, &local.live)) {
                true => VmState::Running,
                false => VmState::Gone,
            },
        };
        match there {
            VmState::Gone if should_run => findings.problem(
                "instances",
                format!("{name} should run, and its VM is gone"),
                format!("form manage start --name {name} boots it from its own disk; `log` in its directory says why it ended"),
            ),
            // A capture that goes on pauses it for a moment.
            VmState::Paused if patient.node.is_none_or(|node| node.busy_with(&local.instance_id).is_none()) => findings
                .problem(
                    "instances",
                    format!("{name} is paused, and no commit is under way"),
                    "restart its node: a VM that no attempt holds is resumed when its node starts",
                ),
            _ => fine += 1,
        }
    }
    if !findings.has_problem("instances") {
        let seen = if patient.node.is_some() { "" } else { " (whether one is paused is known while the node runs)" };
        findings.ok("instances", format!("{fine} here, each as it should be{seen}"));
    }
}

/// Processes of ours that are no instance's.
pub(super) fn strangers(findings: &mut Findings, patient: &Patient<'_>) {
    let mut known: BTreeSet<String> = patient.instances.iter().map(|local| uuid(patient, local, &local.live)).collect();
    for participant in &patient.participants {
        let local = patient.instances.iter().find(|local| local.instance_id == participant.instance_id);
        known.extend(local.zip(super::incoming(participant)).map(|(local, live)| uuid(patient, local, &live)));
    }
    let idle = patient.node.is_none_or(|node| node.is_idle());
    for process in processes(patient).iter().filter(|process| idle && !known.contains(&process.uuid)) {
        findings.problem(
            "leftovers",
            format!("process {} is a VM in this data directory, and no instance's", process.pid),
            format!("restart the node, which ends it; if it stays: kill {}", process.pid),
        );
    }
}

/// Who waits here, and for what.
pub(super) fn in_flight(findings: &mut Findings, patient: &Patient<'_>) {
    for participant in &patient.participants {
        let (name, attempt) = (&participant.name, &participant.attempt_id);
        let waits = match (participant.step.as_str(), participant.role.as_str()) {
            ("prepared", _) => "has the new images ready and waits for the others",
            ("activating", _) => "is putting its new VM in place",
            ("active", "source") => "runs, and waits for the outcome, which the state store says",
            ("active", _) => "is paused, and waits for the outcome, which the state store says",
            ("resuming", _) => "is committed, and is being switched to the new commit",
            _ => "is aborted, and is going back to what it ran",
        };
        let message = format!("{name} {waits} (attempt {attempt})");
        if patient.node.is_some() {
            findings.note("in flight", message, "form manage status --watch shows how it goes on");
        } else {
            findings.problem("in flight", message, "run the node: it finishes or undoes it before it takes requests");
        }
    }
    if patient.participants.is_empty() {
        findings.ok("in flight", "no instance here is in an attempt");
    }
}
