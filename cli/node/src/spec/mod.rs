//! The instance spec: what a guest is made of, as a person writes it in TOML and as the node keeps it.

mod commands;
mod files;
mod health;
mod limits;
mod parse;
mod size;
mod text;

use std::path::PathBuf;

use form_vmm_hooks::{Commands, Health, Probe};
use serde::{Deserialize, Serialize};

pub(crate) use files::path_of;
pub use limits::SPEC_BYTES_MAX;

/// A spec that was read and accepted. All instances of a cluster have the same, but for a `mac`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// What runs it, and what else that needs.
    pub vmm: VmmSpec,
    /// In the order in which the guest finds them.
    pub disks: Vec<DiskSpec>,
    /// What a new VM of it is asked before it takes the old one's place.
    pub health: Option<Health>,
}

/// What can run an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmmSpec {
    /// QEMU.
    Qemu(QemuSpec),
    /// Nothing of ours: the instance is only files.
    Files(FilesSpec),
}

/// A guest of QEMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuSpec {
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
    /// What becomes of the old VM while a commit waits for its outcome.
    #[serde(default)]
    pub way_back: WayBack,
    /// Address of the network card; from the instance's id when absent.
    #[serde(default)]
    pub mac: Option<String>,
}

/// What an instance goes back to if a commit is aborted after it was activated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WayBack {
    /// As its host has memory for two VMs, or not.
    #[default]
    Auto,
    /// Its old VM, paused.
    Paused,
    /// Its old VM's memory and state on disk: the process is ended first.
    Saved,
}

/// A machine that is only files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesSpec {
    /// The file that is copied as its memory, if it has one.
    #[serde(default)]
    pub memory_template: Option<PathBuf>,
    /// What drives it; none for a machine that stands still.
    pub commands: Commands,
}

impl InstanceSpec {
    /// Whether its guests need a port for an agent.
    pub(crate) fn has_agent(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.probe == Probe::AgentPing)
    }

    /// For another instance of the cluster: without what is one instance's own.
    #[must_use]
    pub fn for_sibling(mut self) -> Self {
        if let VmmSpec::Qemu(qemu) = &mut self.vmm {
            qemu.mac = None;
        }
        self
    }
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Names the disk as an artifact.
    pub name: String,
    /// The raw image that is copied when the first instance of the cluster is made; never written.
    pub template: PathBuf,
}
