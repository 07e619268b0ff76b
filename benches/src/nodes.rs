//! Real nodes for a benchmark, and what their processes use.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use form_tests::{Assets, Cluster, Form, Node, NodeOptions, Scene};
use serde_json::Value;

use crate::{
    Result,
    process::{Usage, Watch, cpu_s},
    settings::Settings,
};

/// Nodes that use less CPU than this in such a time have nothing to do any more.
const IDLE_CPU_S: f64 = 0.025;
const IDLE_TIME: Duration = Duration::from_secs(1);
/// How long they may have something to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs nodes n1, n2, … of the program that is measured.
pub(crate) fn start(settings: &Settings, mut assets: Assets, scene: Scene, plan: Vec<NodeOptions>) -> Result<Cluster> {
    assets.form = settings.form.clone();
    let (mnemonic, _) = Form::new(assets.form.clone(), None).new_account()?;
    Ok(Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?)
}

/// Boots an instance of a new cluster of machines of files, or of the cluster of another, and starts it.
pub(crate) fn create(cluster: &Cluster, number: usize, name: &str, from: &From<'_>) -> Result<()> {
    let form = cluster.form(number);
    let path = cluster.scene().dir().join("files.toml");
    let path_text = path.to_string_lossy();
    let (flag, value) = match from {
        From::Spec(spec) => {
            fs::write(&path, spec)?;
            ("--spec", &*path_text)
        }
        From::Like(other) => ("--like", *other),
    };
    let _: Value = form.json(&["manage", "create", "--name", name, flag, value])?;
    let _: Value = form.json(&["manage", "start", "--name", name])?;
    Ok(())
}

/// What an instance is made from.
pub(crate) enum From<'a> {
    /// A spec's text.
    Spec(String),
    /// The name of another instance.
    Like(&'a str),
}

/// The file that a machine of files has now.
pub(crate) fn live(node: &Node, name: &str, artifact: &str) -> PathBuf {
    node.data().join("live").join(name).join(format!("{artifact}.img"))
}

/// The one file of that name among an instance's of a node that hosts no other.
pub(crate) fn only_live(node: &Node, file: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for instance in fs::read_dir(node.data().join("instances"))? {
        for live in fs::read_dir(instance?.path())?.flatten().filter(|entry| entry.path().is_dir()) {
            found.extend(Some(live.path().join(file)).filter(|path| path.exists()));
        }
    }
    let paths = format!("{} of {file} on {}", found.len(), node.name());
    found.pop().filter(|_| found.is_empty()).ok_or_else(|| paths.into())
}

/// The image of that root among those that a node holds.
pub(crate) fn base(node: &Node, root: &str) -> Result<PathBuf> {
    let clusters = fs::read_dir(node.data().join("clusters"))?;
    let mut paths = clusters.flatten().map(|cluster| cluster.path().join("base").join(format!("{root}.img")));
    paths.find(|path| path.exists()).ok_or_else(|| format!("{} has no image {root}", node.name()).into())
}

/// Waits until nodes have done what they do after a commit: bring their standbys up to it.
pub(crate) fn until_idle<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<()> {
    let pids: Vec<u32> = nodes.filter_map(Node::pid).collect();
    let used = || pids.iter().map(|pid| cpu_s(*pid)).sum::<Result<f64>>();
    let (until, mut before) = (Instant::now() + PATIENCE, used()?);
    loop {
        std::thread::sleep(IDLE_TIME);
        let now = used()?;
        if now - before < IDLE_CPU_S {
            return Ok(());
        }
        if Instant::now() > until {
            return Err("the nodes never have nothing to do".into());
        }
        before = now;
    }
}

/// A commit through the command line: what the command used, what each of `nodes` used meanwhile, and the summary.
pub(crate) fn commit(form: &Form, name: &str, nodes: &[&Node]) -> Result<(Usage, Vec<Usage>, Value)> {
    let pids = nodes.iter().map(|node| node.pid().ok_or_else(|| format!("{} does not run", node.name()).into()));
    let watches = pids.map(|pid: Result<u32>| Watch::start(pid?)).collect::<Result<Vec<_>>>()?;
    let mut command = Usage::default();
    let printed = command.run(&mut form.command(["manage", "commit", "--name", name, "--json"]))?;
    let used = watches.into_iter().map(Watch::end).collect::<Result<_>>()?;
    let last: Value = serde_json::from_str(printed.lines().last().unwrap_or_default())?;
    match find(&last, "summary") {
        Some(summary) if summary.is_object() => Ok((command, used, summary.clone())),
        _ => Err(format!("the commit's last event is no summary: {last}").into()),
    }
}

/// The first value under that key, however deep.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields.get(key).or_else(|| fields.values().find_map(|value| find(value, key)))
}

/// `form-bench yardstick VERB FILE…`, in a process of its own; what it printed.
pub(crate) fn yardstick(verb: &str, files: &[&Path]) -> Result<Value> {
    let printed = Usage::default().run(Command::new(std::env::current_exe()?).args(["yardstick", verb]).args(files))?;
    Ok(serde_json::from_str(&printed)?)
}

/// A whole number of bytes, or another figure, of a summary.
pub(crate) fn number(value: &Value) -> Result<f64> {
    value.as_f64().ok_or_else(|| format!("the summary says {value} where a number should be").into())
}
