//! An instance as its own node keeps it.

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::api::types::VmmView;
use crate::auth::Address;
use crate::spec::InstanceSpec;
use form_vmm_hooks::{Machine, MachineDisk};

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
}

impl LocalInstance {
    /// The machine whose files and sockets are in the directory `live`.
    pub(crate) fn machine(&self, layout: &Layout, live: &str, link_up: bool) -> Machine {
        let dir = layout.live(&self.instance_id, live);
        let disks = self.spec.disks.iter();
        Machine {
            name: self.name.clone(),
            uuid: machine_uuid(&self.instance_id, live),
            ram_path: dir.join(file_name(MEMORY)),
            disks: disks.map(|d| MachineDisk { name: d.name.clone(), path: dir.join(file_name(&d.name)) }).collect(),
            dir,
            memory_bytes: self.spec.memory_bytes,
            kernel: self.spec.kernel.clone(),
            initrd: self.spec.initrd.clone(),
            cmdline: self.spec.cmdline.clone(),
            mac: self.mac.clone(),
            generation_id: machine_uuid(live, &self.instance_id),
            link_up,
        }
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
