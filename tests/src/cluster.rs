//! Nodes that share a state store, and a key for them.

use std::path::PathBuf;

use form_node::api::types::{Created, InstanceView};

use crate::{Assets, Context, Error, Form, Guest, Node, NodeOptions, Result, Scene};

/// What each node of a cluster is to be.
pub type Plan = Vec<NodeOptions>;

/// Running nodes n1, n2, … in one scene.
#[derive(Debug)]
pub struct Cluster {
    // First: nodes end before their scene goes.
    nodes: Vec<Node>,
    key: (&'static str, String),
    assets: Assets,
    ended_well: bool,
    scene: Scene,
}

impl Cluster {
    /// Makes and runs the nodes; `key` is the owner's, as a variable that `form` reads.
    ///
    /// # Errors
    /// A node does not come up.
    pub fn start(scene: Scene, assets: Assets, plan: Plan, key: (&'static str, String)) -> Result<Self> {
        let store = scene.dir().join("store");
        std::fs::create_dir(&store).context(|| format!("make {}", store.display()))?;
        let spec = scene.dir().join("guest.toml");
        std::fs::write(&spec, assets.spec()).context(|| format!("write {}", spec.display()))?;
        let mut cluster = Self { nodes: Vec::new(), key, assets, ended_well: false, scene };
        for (number, options) in plan.into_iter().enumerate() {
            let name = format!("n{}", number + 1);
            let mut node = Node::init(&cluster.scene, &name, &cluster.assets.form, options)?;
            node.start()?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Node number 1, 2, …
    ///
    /// # Panics
    /// There is no such node: the caller's own mistake.
    pub fn node(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    /// The same, to look at.
    ///
    /// # Panics
    /// As [`Cluster::node`].
    pub fn node_ref(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// `form`, asking that node with the owner's key.
    pub fn form(&self, number: usize) -> Form {
        let (name, value) = &self.key;
        self.nodes[number - 1].form().with(name, value)
    }

    /// Makes an instance of a new cluster of instances on that node.
    ///
    /// # Errors
    /// As [`Form::json`].
    pub fn create(&self, number: usize, name: &str) -> Result<Created> {
        let spec = self.scene.dir().join("guest.toml");
        self.form(number).json(&["manage", "create", "--name", name, "--spec", &spec.to_string_lossy()])
    }

    /// Makes one like another.
    ///
    /// # Errors
    /// As [`Form::json`].
    pub fn create_like(&self, number: usize, name: &str, like: &str) -> Result<Created> {
        self.form(number).json(&["manage", "create", "--name", name, "--like", like])
    }

    /// Boots an instance; does not wait for its shell.
    ///
    /// # Errors
    /// As [`Form::json`].
    pub fn boot(&self, number: usize, name: &str) -> Result<Guest> {
        let view: InstanceView = self.form(number).json(&["manage", "start", "--name", name])?;
        if view.status != "Started" {
            return Err(Error::new(format!("{name} was started and is {}", view.status)));
        }
        Ok(Guest::new(self.form(number), name))
    }

    /// Instances `<prefix>-1`, `<prefix>-2`, … on the first nodes, all of one cluster, each booted by itself: every shell
    /// answers, and each has a boot id of its own.
    ///
    /// # Errors
    /// One does not come up.
    pub fn boot_all(&self, prefix: &str, count: usize) -> Result<Vec<Guest>> {
        let first = format!("{prefix}-1");
        self.create(1, &first)?;
        let mut guests = vec![self.boot(1, &first)?];
        guests[0].attach()?;
        for number in 2..=count {
            let name = format!("{prefix}-{number}");
            self.create_like(number, &name, &first)?;
            guests.push(self.boot(number, &name)?);
        }
        for guest in &mut guests[1..] {
            guest.attach()?;
        }
        Ok(guests)
    }

    /// Everything that it has on this machine.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// What it was made from.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Ends it as a user would: each instance is stopped, each node asked to end. Then nothing may be left that has to be
    /// killed.
    ///
    /// # Errors
    /// Something failed or was left; it is done away with all the same.
    pub fn shut_down(mut self) -> Result<()> {
        let form = self.form(1);
        for instance in form.instances()?.iter().filter(|instance| instance.status == "Started") {
            let _: InstanceView = form.json(&["manage", "stop", "--name", &instance.name])?;
        }
        for node in &mut self.nodes {
            node.stop()?;
        }
        let left = self.scene.processes();
        if !left.is_empty() {
            return Err(Error::new(format!("processes {left:?} were left behind")));
        }
        self.ended_well = true;
        self.scene.remove()
    }

    /// Ends it and leaves its files where they are; where that is.
    ///
    /// # Errors
    /// A process does not end.
    pub fn keep_files(mut self) -> Result<PathBuf> {
        self.ended_well = true;
        for node in &mut self.nodes {
            node.kill();
        }
        self.scene.keep_files()?;
        Ok(self.scene.dir().to_owned())
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Leaves it all running; the nodes' pids.
    pub fn keep(mut self) -> Vec<u32> {
        self.ended_well = true;
        self.scene.keep();
        self.nodes.iter_mut().filter_map(Node::detach).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.ended_well {
            // The logs go with the scene; whoever looks for the reason needs their ends.
            for node in &self.nodes {
                eprintln!("end of the log of {}:\n    {}", node.name(), node.log_tail());
            }
        }
    }
}
