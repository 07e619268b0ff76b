use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use form_tests::{Assets, Cluster, Network, NodeOptions, Scene};

use super::{Job, Role, Tool, Update};
use crate::{
    Result,
    nodes::{self, From, commit, live, until_idle},
    process::Usage,
    settings::Settings,
};

const SOURCE: &str = "source";
const TARGET: &str = "target";
const DISK: &str = "root";
const MEMORY: &str = "memory";

/// A commit of a machine that is only files, from one node to another over QUIC, from the command until it is settled.
///
/// Each node has a network namespace of its own; between them is a bridge with an MTU of 1500. Both ends run at once: the wall time is the source's. Before a run
/// both machines are at the base, by a commit, and the nodes have nothing left to do.
pub(super) struct Commit {
    settings: Settings,
    home: RefCell<Option<Home>>,
}

impl Commit {
    pub(super) fn new(settings: &Settings) -> Commit {
        Commit { settings: settings.clone(), home: RefCell::new(None) }
    }
}

impl Tool for Commit {
    fn name(&self) -> &'static str {
        "form-commit"
    }

    fn role(&self) -> Role {
        Role::Ours
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let mut home = self.home.borrow_mut();
        if home.as_ref().is_none_or(|home| home.bases != job.bases) {
            // One at a time: the old one's files go first.
            drop(home.take());
            *home = Some(Home::start(&self.settings, job.bases)?);
        }
        let home = home.as_mut().ok_or("no nodes")?;
        let result = home.update(job, source, target);
        home.is_at_base = false;
        result
    }
}

/// Two nodes with an instance each, made from the same bases.
struct Home {
    bases: Vec<PathBuf>,
    /// Whether the last thing that happened was a commit of the base. Joining is not enough: standbys come after a commit.
    is_at_base: bool,
    // The nodes end before their network goes.
    cluster: Option<Cluster>,
    network: Network,
}

impl Home {
    fn start(settings: &Settings, bases: &[PathBuf]) -> Result<Home> {
        let scene = Scene::new()?;
        let network = Network::new(&scene, 2)?;
        let options = |number| -> Result<NodeOptions> {
            let api = "127.0.0.1:3002".parse()?;
            Ok(NodeOptions { room: Some(network.room(number)?), api, quic: Network::quic(number), qemu: None })
        };
        let cluster = nodes::start(settings, Assets::without_guest()?, scene, vec![options(0)?, options(1)?])?;
        let home = Home { bases: bases.to_owned(), is_at_base: false, cluster: Some(cluster), network };
        nodes::create(home.cluster()?, 1, SOURCE, &From::Spec(spec(bases)?))?;
        nodes::create(home.cluster()?, 2, TARGET, &From::Like(SOURCE))?;
        Ok(home)
    }

    fn update(&mut self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let cluster = self.cluster()?;
        let artifact = if self.bases.len() > 1 { MEMORY } else { DISK };
        let (near, far) = (cluster.node_ref(1), cluster.node_ref(2));
        let (live, result) = (live(near, SOURCE, artifact), live(far, TARGET, artifact));
        if !self.is_at_base {
            nodes::yardstick("reset", &[&live, job.base()?])?;
            commit(&cluster.form(1), SOURCE, &[])?;
        }
        nodes::yardstick("reset", &[&live, job.new])?;
        until_idle([near, far].into_iter())?;

        let before = self.on_the_wire()?;
        let (command, used, summary) = commit(&cluster.form(1), SOURCE, &[near, far])?;
        let wire_bytes = self.on_the_wire()? - before;
        // What they do after it must not run beside the next tool.
        until_idle([near, far].into_iter())?;
        source.add(command);
        match used.as_slice() {
            [near, far] => {
                source.add(*near);
                target.add(*far);
            }
            _ => return Err("two nodes were watched".into()),
        }
        Ok(Update { wire_bytes, result: Some(result), detail: summary })
    }

    /// What has arrived at both ends.
    fn on_the_wire(&self) -> Result<u64> {
        Ok(self.network.received_payload_bytes(0)? + self.network.received_payload_bytes(1)?)
    }

    fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().ok_or_else(|| "no cluster".into())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.cluster.take().map(Cluster::shut_down) {
            eprintln!("form-commit: {error:?}");
        }
    }
}

/// A machine of these files: a disk, or memory and then its disk.
fn spec(bases: &[PathBuf]) -> Result<String> {
    let (memory, disk): (Option<&Path>, &Path) = match bases {
        [disk] => (None, disk),
        [memory, disk] => (Some(memory), disk),
        _ => return Err("neither a disk nor memory with its disk".into()),
    };
    let memory = memory.map(|path| format!("memory_path = {path:?}\n")).unwrap_or_default();
    Ok(format!("vmm = \"files\"\n{memory}[[disk]]\nname = \"{DISK}\"\npath = {disk:?}\n"))
}
