//! The instance spec: what a guest is made of, as a person writes it in TOML and as the node keeps it.

mod files;
mod limits;
mod parse;
mod size;
mod text;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use files::path_of;
pub use limits::SPEC_BYTES_MAX;

/// A spec that was read and accepted. All instances of a cluster have the same, but for `mac`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// The hypervisor.
    pub vmm: VmmKind,
    /// Whole MiB.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// The kernel that the guest boots.
    pub kernel: PathBuf,
    /// The kernel's initramfs.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// In the order in which the guest finds them.
    pub disks: Vec<DiskSpec>,
    /// Address of the network card; from the instance's id when absent.
    #[serde(default)]
    pub mac: Option<String>,
}

/// The hypervisors that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmmKind {
    /// QEMU.
    Qemu,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Names the disk as an artifact.
    pub name: String,
    /// The raw image that is copied when the first instance of the cluster is made; never written.
    pub template: PathBuf,
}
