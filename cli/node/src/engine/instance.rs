//! An instance as its own node keeps it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::api::types::VmmView;
use crate::auth::Address;
use crate::spec::{InstanceSpec, VmmSpec};
use form_transport::ArtifactKind;
use form_vmm_hooks::{Commands, Machine, MachineDisk};

/// The name of the guest's memory among a commit's artifacts.
pub(crate) const MEMORY: &str = "memory";
/// The name of the VMM's own state among them.
pub(crate) const DEVICE: &str = "device";

/// One row of `node.db`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalInstance {
    pub(crate) instance_id: String,
    pub(crate) name: String,
    pub(crate) cluster_id: String,
    /// Pinned when the instance was made: what the store says later can't give it to somebody else.
    pub(crate) owner: Address,
    pub(crate) spec: InstanceSpec,
    pub(crate) mac: String,
    /// Names the directory, below the instance's, of the VM that is the instance now.
    pub(crate) live: String,
    /// What that VM's process is: the host may have got another VMM since it was started.
    #[serde(default)]
    pub(crate) vmm: Option<VmmView>,
    /// Disks of which a hint was wrong once.
    #[serde(default)]
    pub(crate) disbelieved: BTreeSet<String>,
}

impl LocalInstance {
    /// The machine whose files and sockets are in the directory `live`.
    pub(crate) fn machine(&self, layout: &Layout, live: &str, link_up: bool) -> Machine {
        let dir = layout.live(&self.instance_id, live);
        let file = |name: &str| MachineDisk { name: name.to_owned(), path: dir.join(file_name(name)) };
        let mut machine = Machine {
            name: self.name.clone(),
            uuid: machine_uuid(&self.instance_id, live),
            ram_path: dir.join(file_name(MEMORY)),
            disks: self.spec.disks.iter().map(|d| file(&d.name)).collect(),
            memory_bytes: 0,
            kernel: PathBuf::new(),
            initrd: None,
            cmdline: String::new(),
            mac: self.mac.clone(),
            generation_id: machine_uuid(live, &self.instance_id),
            link_up,
            agent: self.spec.has_agent(),
            commands: Commands::default(),
            dir: dir.clone(),
        };
        match &self.spec.vmm {
            VmmSpec::Qemu(qemu) => {
                machine.memory_bytes = qemu.memory_bytes;
                machine.kernel.clone_from(&qemu.kernel);
                machine.initrd.clone_from(&qemu.initrd);
                machine.cmdline.clone_from(&qemu.cmdline);
            }
            VmmSpec::Files(files) => {
                machine.disks.extend(files.memory_template.is_some().then(|| file(MEMORY)));
                machine.commands = files.commands.clone();
            }
        }
        machine
    }

    /// What a commit of it consists of, sorted by name as a commit lists it.
    pub(crate) fn artifacts(&self) -> Vec<(String, ArtifactKind)> {
        let disks = self.spec.disks.iter().map(|d| (d.name.clone(), ArtifactKind::Disk));
        let (memory, device) = match &self.spec.vmm {
            VmmSpec::Qemu(_) => (true, true),
            VmmSpec::Files(files) => (files.memory_template.is_some(), false),
        };
        let memory = memory.then(|| (MEMORY.to_owned(), ArtifactKind::Memory));
        let device = device.then(|| (DEVICE.to_owned(), ArtifactKind::DeviceState));
        let mut artifacts: Vec<_> = disks.chain(memory).chain(device).collect();
        artifacts.sort_by(|a, b| a.0.cmp(&b.0));
        artifacts
    }

    /// The names of those that are files in its live directory.
    pub(crate) fn images(&self) -> Vec<String> {
        let images = self.artifacts().into_iter().filter(|(_, kind)| *kind != ArtifactKind::DeviceState);
        images.map(|(name, _)| name).collect()
    }

    /// Whether there is a device state, without which its memory is worth nothing.
    pub(crate) fn has_device(&self) -> bool {
        matches!(self.spec.vmm, VmmSpec::Qemu(_))
    }

    /// Whether a hint of what changed on a disk may be used. Files have no hypervisor that could give one.
    pub(crate) fn believes(&self, disk: &str) -> bool {
        self.has_device() && !self.disbelieved.contains(disk)
    }

    /// Whether it starts with a file that it finds in its live directory, not with a new one.
    pub(crate) fn starts_from(&self, kind: ArtifactKind) -> bool {
        kind == ArtifactKind::Disk || (kind == ArtifactKind::Memory && !self.has_device())
    }
}

/// The file of an artifact, in staging and in a live directory alike.
pub(crate) fn file_name(artifact: &str) -> String {
    format!("{artifact}.img")
}

/// A process is asked who it is by this; it differs for each VM that an instance ever was.
fn machine_uuid(a: &str, b: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("form machine uuid v1");
    hasher.update(a.as_bytes());
    hasher.update(&[0]);
    hasher.update(b.as_bytes());
    let hex = hex::encode(&hasher.finalize().as_bytes()[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A MAC address of the range QEMU uses, from the instance's id.
pub(crate) fn mac_of(instance_id: &str) -> String {
    let hash = blake3::hash(instance_id.as_bytes());
    let [a, b, c, ..] = hash.as_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}
