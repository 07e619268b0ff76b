//! A cluster at rest: whatever has happened, everything is settled, and nothing of an attempt is left.

use std::path::Path;
use std::time::{Duration, Instant};

use form_node::api::types::InstanceView;

use crate::{Cluster, Error, Result};

/// Waits until every instance runs, all have one commit, nothing is under way, and each node has of each instance what
/// it runs on and nothing else; all instances. Every node must be up, and host one instance.
///
/// # Errors
/// What is not so after `patience`.
pub fn at_rest(cluster: &Cluster, vms: usize, patience: Duration) -> Result<Vec<InstanceView>> {
    let until = Instant::now() + patience;
    loop {
        match look(cluster, vms) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
            rest => return rest,
        }
    }
}

fn look(cluster: &Cluster, vms: usize) -> Result<Vec<InstanceView>> {
    let instances = cluster.form(1).instances()?;
    for instance in &instances {
        let name = &instance.name;
        if instance.status != "Started" {
            return Err(Error::new(format!("{name} is {}", instance.status)));
        }
        if let Some(attempt) = &instance.attempt_id {
            return Err(Error::new(format!("attempt {attempt} of {name} is not settled")));
        }
        if instance.snapshot_id != instances[0].snapshot_id {
            return Err(Error::new(format!("not all have one commit: {instances:?}")));
        }
    }
    for number in 1..=cluster.nodes() {
        let data = cluster.node_ref(number).data();
        exactly(&data.join("staging"), 0)?;
        exactly(&data.join("instances"), 1)?;
        for instance in entries(&data.join("instances")) {
            exactly(&data.join("instances").join(instance), 1)?;
        }
    }
    let processes = cluster.scene().processes();
    if processes.len() != cluster.nodes() + vms {
        return Err(Error::new(format!("{} nodes and {vms} VMs, and these run: {processes:?}", cluster.nodes())));
    }
    Ok(instances)
}

fn exactly(dir: &Path, count: usize) -> Result<()> {
    let entries = entries(dir);
    match entries.len() == count {
        true => Ok(()),
        false => Err(Error::new(format!("{} has {entries:?}", dir.display()))),
    }
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
