//! What a commit did, as people read it. The same figures are in the JSON of the last event.

use std::collections::BTreeSet;

use form_node::api::types::{ArtifactSummary, CommitSummary, TargetSummary};

use crate::table::Table;
use crate::units::{bytes, duration_ms, duration_ns, in_column, percent};

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
            "{} was paused for {}; meanwhile {} were read and {} written\n{}\
             its images have {} allocated: RAM {}, disk {}\n\
             {} from the request to the last acknowledgement",
            summary.source,
            duration_ns(summary.pause_ns),
            bytes(summary.paused_read_bytes),
            bytes(summary.paused_written_bytes),
            pause_parts(summary),
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

/// A line, in the order in which they come.
fn pause_parts(summary: &CommitSummary) -> String {
    let part = |name: &str| summary.pause_parts_ns.get(name).map(|ns| format!("{name} {}", duration_ns(*ns)));
    let parts: Vec<_> = ["stop", "device state", "copy", "cont"].into_iter().filter_map(part).collect();
    if parts.is_empty() { String::new() } else { format!("its pause: {}\n", parts.join(", ")) }
}

/// By name: the order in which they were brought along means nothing.
fn by_name(summary: &CommitSummary) -> Vec<&TargetSummary> {
    let mut targets: Vec<_> = summary.targets.iter().collect();
    targets.sort_by(|a, b| a.instance.cmp(&b.instance));
    targets
}

fn targets(summary: &CommitSummary, allocated: u64) -> Table {
    let mut table =
        Table::new(["target", ">sent", ">of RAM + disk", ">datagrams", ">downtime", "engine", "staged = captured"]);
    for target in by_name(summary) {
        let (equal, all) = roots(summary, target);
        table.row([
            target.instance.clone(),
            in_column(bytes(target.sent_bytes)),
            percent(target.sent_bytes, allocated),
            target.sent_datagrams.to_string(),
            in_column(duration_ns(target.downtime_ns)),
            target.engine.clone(),
            format!("{} ({equal} of {all} images)", if equal == all { "yes" } else { "NO" }),
        ]);
    }
    table
}

fn artifacts(summary: &CommitSummary) -> Table {
    let mut table = Table::new(["image", ">length", ">changed", ">encoded", "recipes"]);
    for artifact in &summary.artifacts {
        table.row([
            artifact.name.clone(),
            in_column(bytes(artifact.image_bytes)),
            in_column(bytes(artifact.changed_bytes)),
            in_column(bytes(artifact.delta_bytes)),
            recipes(artifact),
        ]);
    }
    table
}

/// The kinds that cost anything, a few to a line.
fn recipes(artifact: &ArtifactSummary) -> String {
    let mut kinds: Vec<(&String, u64)> =
        artifact.recipes.iter().map(|(kind, count)| (kind, *count)).filter(|(_, count)| *count > 0).collect();
    kinds.sort_by_key(|(kind, _)| position(&KINDS, kind));
    let words: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {}", bytes(*count))).collect();
    if words.is_empty() {
        "-".into()
    } else {
        words.chunks(3).map(|some| some.join(", ")).collect::<Vec<_>>().join(",\n")
    }
}

/// One row a phase, one column for the source and one for each target.
fn phases(summary: &CommitSummary) -> Table {
    let targets = by_name(summary);
    let instances = std::iter::once(&summary.source).chain(targets.iter().map(|target| &target.instance));
    let head = std::iter::once("phase".to_owned()).chain(instances.map(|name| format!(">{name}")));
    let mut table = Table::new(head);
    let columns: Vec<_> =
        std::iter::once(&summary.phases_ms).chain(targets.iter().map(|target| &target.phases_ms)).collect();
    let names: BTreeSet<&String> = columns.iter().flat_map(|phases| phases.keys()).collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(|name| position(&WAY, name));
    for name in names {
        let times =
            columns.iter().map(|phases| phases.get(name).map_or("-  ".into(), |ms| in_column(duration_ms(*ms))));
        table.row(std::iter::once(name.clone()).chain(times));
    }
    table
}

/// Where a name stands in an order; names it does not have come last, and keep their own order.
fn position(order: &[&str], name: &str) -> usize {
    order.iter().position(|other| *other == name).unwrap_or(order.len())
}

/// The order in which recipes are listed: from what costs nothing to what is new.
const KINDS: [&str; 7] = ["keep", "zero", "copy", "raw", "zstd", "zstd_prefix", "edited"];

/// The order in which phases are listed.
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

fn is_staged(target: &TargetSummary, artifact: &ArtifactSummary) -> bool {
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
