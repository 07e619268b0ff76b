//! How a commit grows with its targets: machines that are only files, on one node with the source and four with up to sixteen targets, on loopback.
//!
//! All nodes share this machine's CPUs, so that the time grows with the work of all targets; what one node does for many is in the CPU time and the bytes of the
//! source's. Every target is compared with the source after every commit. Rows are named `targets/metric`.

use std::fs;

use form_tests::{Assets, Cluster, Node, NodeOptions, Scene};
use serde_json::Value;

use crate::{
    Result,
    nodes::{self, From, commit, live, number, until_idle},
    results::{Rows, median},
    settings::Settings,
    shape::{GIB, Shape},
};

/// Nodes that have targets.
const NODES: usize = 4;
const DISK: &str = "root";

/// Runs commits to 1, 2, 4, 8 and 16 targets and writes their rows.
pub fn run(settings: &Settings) -> Result<()> {
    fs::create_dir_all(&settings.dir)?;
    let mut rows = Rows::in_file("targets", &settings.dir.join("targets.jsonl"), |_| false)?;
    let plan = (0..=NODES).map(|_| NodeOptions::local()).collect::<form_tests::Result<_>>()?;
    let cluster = nodes::start(settings, Assets::without_guest()?, Scene::new()?, plan)?;
    // 128 MiB of data all over the image, 8 of them changed in each commit.
    let shape = Shape { image_bytes: GIB, data_mib: 128, is_changed: |number| number % 16 == 7 };
    let template = cluster.scene().dir().join("template.raw");
    shape.write(&template)?;
    let spec = format!("vmm = \"files\"\n[[disk]]\nname = \"{DISK}\"\npath = {template:?}\n");
    nodes::create(&cluster, 1, "source", &From::Spec(spec))?;
    let (mut made, mut version) = (0, 0);
    for targets in [1, 2, 4, 8, 16] {
        while made < targets {
            made += 1;
            nodes::create(&cluster, node_of(made), &name_of(made), &From::Like("source"))?;
        }
        let mut runs = Vec::new();
        for _ in 0..settings.rounds {
            version += 1;
            shape.change(&live(cluster.node_ref(1), "source", DISK), version)?;
            runs.push(one(&cluster, targets)?);
        }
        for (index, (name, unit)) in FIGURES.into_iter().enumerate() {
            let value = median(runs.iter().map(|run| run[index]).collect());
            rows.add(&format!("{targets}/{name}"), value, unit)?;
            eprintln!("{targets:>2} targets  {name:<10} {value:>14.3} {unit}");
        }
    }
    Ok(cluster.shut_down()?)
}

const FIGURES: [(&str, &str); 6] =
    [("wall", "s"), ("staged", "s"), ("source-cpu", "s"), ("target-cpu", "s"), ("encoded", "bytes"), ("sent", "bytes")];

/// One commit to all; then every target is the source.
fn one(cluster: &Cluster, targets: usize) -> Result<[f64; 6]> {
    let used = 1..=1 + targets.min(NODES);
    let nodes: Vec<&Node> = used.map(|number| cluster.node_ref(number)).collect();
    until_idle(nodes.iter().copied())?;
    let (command, used, summary) = commit(&cluster.form(1), "source", &nodes)?;
    let source = live(cluster.node_ref(1), "source", DISK);
    for target in 1..=targets {
        nodes::yardstick("same", &[&live(cluster.node_ref(node_of(target)), &name_of(target), DISK), &source])?;
    }
    let cpu_s = |used: &[crate::process::Usage]| used.iter().map(|usage| usage.cpu_s).sum::<f64>();
    let (source, others) = used.split_at(1);
    let staged_ms = number(&summary["phases_ms"]["stage"]).unwrap_or(f64::NAN);
    let encoded = sum(&summary["artifacts"], "delta_bytes")?;
    Ok([command.wall_s, staged_ms / 1000.0, cpu_s(source), cpu_s(others), encoded, sent(&summary)?])
}

/// What the source's socket sent. It is counted by node, and told of each target there.
fn sent(summary: &Value) -> Result<f64> {
    let targets = summary["targets"].as_array().ok_or("a summary without targets")?;
    let mut by_node = std::collections::BTreeMap::<&str, f64>::new();
    for target in targets {
        let node = target["node_id"].as_str().ok_or("a target without a node")?;
        let most = by_node.entry(node).or_default();
        *most = most.max(number(&target["sent_bytes"])?);
    }
    Ok(by_node.values().sum())
}

fn sum(list: &Value, field: &str) -> Result<f64> {
    list.as_array().ok_or("a summary without a list")?.iter().map(|item| number(&item[field])).sum()
}

fn name_of(target: usize) -> String {
    format!("target-{target}")
}

fn node_of(target: usize) -> usize {
    2 + (target - 1) % NODES
}
