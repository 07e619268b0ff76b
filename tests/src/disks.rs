//! Instances that are one small disk each and no process: whole commits of them take a second.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use form_node::api::types::{Created, InstanceView};

use crate::{Cluster, Context, Error, Result};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 1024;
/// As many are written at a time, all over the disk.
const WRITTEN: u64 = 24;

/// Instances `d-1`, `d-2`, … of one cluster, one on each node, all started.
#[derive(Clone, Copy, Debug)]
pub struct Disks;

impl Disks {
    /// Makes them on all nodes.
    ///
    /// # Errors
    /// A node refuses.
    pub fn create(cluster: &Cluster) -> Result<Self> {
        let (template, spec) = (cluster.scene().dir().join("disk.raw"), cluster.scene().dir().join("disks.toml"));
        let file = File::create(&template).context(|| format!("make {}", template.display()))?;
        file.set_len(BLOCKS * BLOCK).context(|| "set a disk's length".into())?;
        write(&file, 0)?;
        let text = format!("vmm = \"files\"\n[[disk]]\nname = \"root\"\npath = {template:?}\n");
        std::fs::write(&spec, text).context(|| format!("write {}", spec.display()))?;
        for number in 1..=cluster.nodes() {
            let name = Self::name(number);
            let form = cluster.form(number);
            let _: Created = match number {
                1 => form.json(&["manage", "create", "--name", &name, "--spec", &spec.to_string_lossy()])?,
                _ => cluster.create_like(number, &name, "d-1")?,
            };
            let _: InstanceView = form.json(&["manage", "start", "--name", &name])?;
        }
        Ok(Self)
    }

    /// The instance on that node.
    pub fn name(number: usize) -> String {
        format!("d-{number}")
    }

    /// Where the running machine on that node has its files.
    fn dir(cluster: &Cluster, number: usize) -> PathBuf {
        cluster.node_ref(number).data().join("live").join(Self::name(number))
    }

    /// Changes it, as no other seed does.
    ///
    /// # Errors
    /// The file system's.
    pub fn change(self, cluster: &Cluster, number: usize, seed: u64) -> Result<()> {
        let path = Self::dir(cluster, number).join("root.img");
        write(&File::options().write(true).open(&path).context(|| format!("open {}", path.display()))?, seed)
    }

    /// What is on it.
    ///
    /// # Errors
    /// There is none: nothing runs there.
    pub fn read(self, cluster: &Cluster, number: usize) -> Result<Vec<u8>> {
        let path = Self::dir(cluster, number).join("root.img");
        std::fs::read(&path).context(|| format!("read {}", path.display()))
    }

    /// It runs: what stands in for its process says so.
    ///
    /// # Errors
    /// It does not.
    pub fn runs(self, cluster: &Cluster, number: usize) -> Result<()> {
        let path = Self::record(cluster, number);
        let record = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        if record.trim_end().ends_with(" running") {
            return Ok(());
        }
        Err(Error::new(format!("{} does not run: {record:?}", Self::name(number))))
    }

    /// The file that says whether it runs; it is written anew when that changes.
    pub fn record(cluster: &Cluster, number: usize) -> PathBuf {
        Self::dir(cluster, number).join("state")
    }
}

fn write(file: &File, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..WRITTEN {
        let mut block = [0; BLOCK as usize];
        random.fill(&mut block);
        file.write_all_at(&block, random.u64(0..BLOCKS) * BLOCK).context(|| "write to a disk".into())?;
    }
    Ok(())
}
