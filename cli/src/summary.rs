//! What a commit did, as people read it. The same figures are in the JSON of the last event.

use std::collections::BTreeSet;

use form_node::api::types::{CommitSummary, TargetSummary};

use crate::table::Table;
use crate::units::{bytes, duration_ms, duration_ns, percent};

/// Paragraphs and tables, without a newline at the end.
pub(crate) fn text(summary: &CommitSummary) -> String {
    let parent = match &summary.parent {
        Some(parent) => format!("its parent is {parent}"),
        None => "it is the cluster's first".into(),
    };
    let allocated = summary.ram_allocated_bytes + summary.disk_allocated_bytes;
    let mut paragraphs = vec![
        format!("committed and settled: {}\n{parent}", summary.snapshot_id),
        format!(
            "{} was paused for {}; meanwhile {} were read and {} written\n\
             its images have {} allocated: RAM {}, disk {}\n\
             {} from the request to the last acknowledgement",
            summary.source,
            duration_ns(summary.pause_ns),
            bytes(summary.paused_read_bytes),
            bytes(summary.paused_written_bytes),
            bytes(allocated),
            bytes(summary.ram_allocated_bytes),
            bytes(summary.disk_allocated_bytes),
            duration_ms(summary.total_ms),
        ),
        targets(summary, allocated).to_string(),
        artifacts(summary).to_string(),
        phases(summary).to_string(),
    ];
    paragraphs.extend(summary.targets.iter().filter_map(|target| unequal(summary, target)));
    paragraphs.join("\n\n")
}

fn targets(summary: &CommitSummary, allocated: u64) -> Table {
    let mut table =
        Table::new(["target", "sent", "of RAM + disk", "datagrams", "downtime", "engine", "staged = captured"]);
    for target in &summary.targets {
        let (equal, all) = roots(summary, target);
        table.row([
            target.instance.clone(),
            bytes(target.sent_bytes),
            percent(target.sent_bytes, allocated),
            target.sent_datagrams.to_string(),
            duration_ns(target.downtime_ns),
            target.engine.clone(),
            format!("{} ({equal} of {all} images)", if equal == all { "yes" } else { "NO" }),
        ]);
    }
    table
}

fn artifacts(summary: &CommitSummary) -> Table {
    let mut table = Table::new(["image", "length", "in changed chunks", "sent as", "recipes", "root"]);
    for artifact in &summary.artifacts {
        let recipes: Vec<String> =
            artifact.recipes.iter().map(|(kind, count)| format!("{kind} {}", bytes(*count))).collect();
        table.row([
            artifact.name.clone(),
            bytes(artifact.image_bytes),
            bytes(artifact.changed_bytes),
            bytes(artifact.delta_bytes),
            if recipes.is_empty() { "-".into() } else { recipes.join(", ") },
            artifact.root.chars().take(16).collect(),
        ]);
    }
    table
}

/// One row a phase, one column for the source and one for each target.
fn phases(summary: &CommitSummary) -> Table {
    let mut head = vec!["phase".to_owned(), summary.source.clone()];
    head.extend(summary.targets.iter().map(|target| target.instance.clone()));
    let mut table = Table::with_head(head);
    let columns: Vec<_> =
        std::iter::once(&summary.phases_ms).chain(summary.targets.iter().map(|target| &target.phases_ms)).collect();
    let names: BTreeSet<&String> = columns.iter().flat_map(|phases| phases.keys()).collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(|name| WAY.iter().position(|phase| phase == name).unwrap_or(WAY.len()));
    for name in names {
        let times = columns.iter().map(|phases| phases.get(name).map_or("-".into(), |ms| duration_ms(*ms)));
        table.row(std::iter::once(name.clone()).chain(times));
    }
    table
}

/// The order in which phases are listed; those it does not name follow.
const WAY: [&str; 13] = [
    "preflight",
    "warm",
    "pause",
    "diff",
    "encode",
    "stage",
    "build",
    "copy",
    "confirm",
    "activate",
    "restore",
    "commit",
    "finalize",
];

/// How many of the captured images a target staged bit for bit, and of how many.
fn roots(summary: &CommitSummary, target: &TargetSummary) -> (usize, usize) {
    let equal = |artifact: &&_| is_staged(target, artifact);
    (summary.artifacts.iter().filter(equal).count(), summary.artifacts.len())
}

fn is_staged(target: &TargetSummary, artifact: &form_node::api::types::ArtifactSummary) -> bool {
    target.staged_roots.get(&artifact.name) == Some(&artifact.root)
}

/// What must never be: said in words, not only in a cell.
fn unequal(summary: &CommitSummary, target: &TargetSummary) -> Option<String> {
    let names: Vec<&str> = summary
        .artifacts
        .iter()
        .filter(|artifact| !is_staged(target, artifact))
        .map(|artifact| artifact.name.as_str())
        .collect();
    (!names.is_empty())
        .then(|| format!("{} did not show that it staged what was captured: {}", target.instance, names.join(", ")))
}
