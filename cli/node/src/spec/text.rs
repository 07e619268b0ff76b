//! The spec as a person writes it. `docs/instance-spec.md` says the same in prose; a test compares the fields.

use std::path::PathBuf;

use serde::Deserialize;

use super::WayBack;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpecText {
    /// The hypervisor: `qemu`, or `files`.
    pub(super) vmm: String,
    /// Guest memory, as in `512MiB`: whole MiB.
    pub(super) memory: Option<String>,
    /// Absolute path of a file that is the memory of a machine of files.
    pub(super) memory_path: Option<PathBuf>,
    /// Virtual CPUs: 1.
    pub(super) vcpus: Option<u32>,
    /// Absolute path of the kernel on the node.
    pub(super) kernel: Option<PathBuf>,
    /// Absolute path of the initramfs on the node.
    pub(super) initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub(super) cmdline: Option<String>,
    /// What becomes of the old VM while a commit waits for its outcome: `auto`, `paused` or `saved`.
    pub(super) way_back: Option<WayBack>,
    /// The disks, in the order in which the guest finds them.
    #[serde(default)]
    pub(super) disk: Vec<DiskText>,
    /// The network card.
    pub(super) network: Option<NetworkText>,
    /// What drives a machine of files.
    pub(super) commands: Option<CommandsText>,
    /// What a new VM is asked before it takes the old one's place.
    pub(super) health: Option<HealthText>,
    /// Host devices handed to the guest: known only to be refused.
    pub(super) passthrough: Option<toml::Value>,
}

/// A `[[disk]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiskText {
    /// Its name: a letter, then letters, digits and `-`.
    pub(super) name: String,
    /// Absolute path of a raw image on the node, copied when the instance is made.
    pub(super) path: PathBuf,
    /// `raw`.
    #[serde(default = "raw")]
    pub(super) format: String,
    /// `committed`: the disk is part of every commit.
    #[serde(default = "committed")]
    pub(super) commit: String,
}

/// `[network]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkText {
    /// The card's address, as in `52:54:00:aa:bb:01`; made from the instance's id when absent.
    pub(super) mac: Option<String>,
}

/// `[commands]`: programs of the node's directory `commands`, each with its arguments.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandsText {
    /// Stops all writes to the files.
    #[serde(default)]
    pub(super) pause: Vec<String>,
    /// The reverse.
    #[serde(default)]
    pub(super) resume: Vec<String>,
    /// Starts the machine on the files.
    #[serde(default)]
    pub(super) start: Vec<String>,
    /// Ends it.
    #[serde(default)]
    pub(super) stop: Vec<String>,
    /// How long each may take, in seconds.
    pub(super) timeout_s: Option<u32>,
}

/// `[health]`: one question, and how long its answer may take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthText {
    /// A program of the node's directory `commands`, with its arguments.
    pub(super) command: Option<Vec<String>>,
    /// A TCP port of the guest.
    pub(super) tcp_port: Option<u32>,
    /// Whether the guest's agent is asked.
    pub(super) agent_ping: Option<bool>,
    /// How long the answer may take, in seconds.
    pub(super) timeout_s: Option<u32>,
}

fn raw() -> String {
    "raw".to_owned()
}

fn committed() -> String {
    "committed".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The fields that serde knows, from its own complaint about one that it does not.
    fn fields<T: for<'a> Deserialize<'a> + std::fmt::Debug>(prefix: &str) -> BTreeSet<String> {
        let message = toml::from_str::<T>("no_such_field = 1").expect_err("unknown field").message().to_owned();
        let known = message.split_once("expected").expect("it lists what it expected").1;
        known.split('`').skip(1).step_by(2).map(|f| format!("{prefix}{f}")).collect()
    }

    #[test]
    fn the_documentation_names_every_field_and_no_other() {
        let mut known = fields::<SpecText>("");
        known.extend(fields::<DiskText>("disk."));
        known.extend(fields::<NetworkText>("network."));
        known.extend(fields::<CommandsText>("commands."));
        known.extend(fields::<HealthText>("health."));
        let text = include_str!("../../../../docs/instance-spec.md");
        let rows = text.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
        let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
        assert_eq!(known, documented);
        for limit in [form_vmm_hooks::MEMORY_BYTES_MIN, form_vmm_hooks::MEMORY_BYTES_MAX] {
            assert!(text.contains(&format!("`\"{}MiB\"`", limit >> 20)), "{limit}");
        }
    }
}
