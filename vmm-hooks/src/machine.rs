//! What a guest is made of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Commands;
use crate::limits::{CMDLINE_BYTES_MAX, DISKS_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, NAME_BYTES_MAX};
use crate::{Error, Result};

/// A guest's description. Everything but `name`, `dir`, the paths, `mac` and `generation_id` has to be equal where a capture
/// of it is restored. What a hook does not need is left empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The identity of its process, 8-4-4-4-12 hex digits; [`Vmm::adopt`](crate::Vmm::adopt) looks for it.
    pub uuid: String,
    /// Where its sockets, log and pid file are. Made if missing, 0700. One process per directory. It may be renamed while
    /// the process runs.
    pub dir: PathBuf,
    /// Its memory: whole MiB.
    pub memory_bytes: u64,
    /// The file that is its memory.
    pub ram_path: PathBuf,
    /// Its disks, in order; the first is /dev/vda.
    pub disks: Vec<MachineDisk>,
    /// The kernel that it boots.
    pub kernel: PathBuf,
    /// The kernel's initramfs.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Its network card's address, as in `52:54:00:aa:bb:01`. A restored guest keeps the one that it was captured with.
    pub mac: String,
    /// The VM generation id, 8-4-4-4-12 hex digits. A new one tells the guest that it was copied.
    pub generation_id: String,
    /// Whether its network cable is plugged in when it boots.
    pub link_up: bool,
    /// Whether it has a port for a guest agent, `org.qemu.guest_agent.0`.
    pub agent: bool,
    /// What drives it, if it is only files.
    pub commands: Commands,
}

/// A raw disk of a [`Machine`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineDisk {
    /// A name, unique in the machine: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl Machine {
    /// Refuses what could not run, by the field's name.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_names()?;
        let refuse = |field, problem: String| self.refuse(field, problem);
        if !is_uuid(&self.generation_id) {
            return refuse("generation_id", format!("`{}` must be 8-4-4-4-12 hex digits", self.generation_id));
        }
        if !is_mac(&self.mac) {
            return refuse("mac", format!("`{}` must be six pairs of hex digits, of one card", self.mac));
        }
        if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&self.memory_bytes)
            || !self.memory_bytes.is_multiple_of(1 << 20)
        {
            let (min, max) = (MEMORY_BYTES_MIN >> 20, MEMORY_BYTES_MAX >> 20);
            return refuse("memory_bytes", format!("{} must be whole MiB, {min} to {max} MiB", self.memory_bytes));
        }
        if self.cmdline.len() > CMDLINE_BYTES_MAX || self.cmdline.contains(|c: char| c.is_control()) {
            return refuse("cmdline", format!("must be one line of at most {CMDLINE_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    /// The part that every hook needs: name, uuid and disks.
    pub(crate) fn check_names(&self) -> Result<()> {
        if !is_name(&self.name) {
            return self.refuse("name", format!("must be 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` or `-`"));
        }
        if !is_uuid(&self.uuid) {
            return self.refuse("uuid", format!("`{}` must be 8-4-4-4-12 hex digits", self.uuid));
        }
        if self.disks.len() > DISKS_MAX {
            return self.refuse("disks", format!("has {}, at most {DISKS_MAX} fit", self.disks.len()));
        }
        let mut names = HashSet::new();
        if let Some(disk) = self.disks.iter().find(|disk| !is_name(&disk.name) || !names.insert(&disk.name)) {
            return self.refuse("disks", format!("name `{}` is not a name, or is there twice", disk.name));
        }
        Ok(())
    }

    fn refuse(&self, field: &'static str, problem: String) -> Result<()> {
        Err(Error::Machine { name: self.name.clone(), field, problem })
    }

    /// Refuses a machine whose kernel, initramfs or disks can't be opened: a monitor's own words for that are worse.
    pub(crate) fn check_files(&self) -> Result<()> {
        let initrd = self.initrd.iter().map(|path| ("initrd", path.as_path()));
        let disks = self.disks.iter().map(|disk| ("disk", disk.path.as_path()));
        for (what, path) in initrd.chain(disks).chain([("kernel", self.kernel.as_path())]) {
            self.open(what, path)?;
        }
        Ok(())
    }

    pub(crate) fn open(&self, what: &'static str, path: &Path) -> Result<std::fs::File> {
        std::fs::File::open(path).map_err(|source| Error::File {
            name: self.name.clone(),
            what,
            path: path.into(),
            source,
        })
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| is_hex(part))
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && is_hex(part))
        // The lowest bit of the first byte says multicast.
        && parts.first().is_some_and(|first| u8::from_str_radix(first, 16).is_ok_and(|byte| byte & 1 == 0))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn machine() -> Machine {
        Machine {
            name: "vm1".into(),
            uuid: "00000000-1111-2222-3333-444444444444".into(),
            dir: "/run/vm1".into(),
            memory_bytes: 512 << 20,
            ram_path: "/data/vm1/ram".into(),
            disks: vec![MachineDisk { name: "root".into(), path: "/data/vm1/root.raw".into() }],
            kernel: "/boot/vmlinuz".into(),
            initrd: Some("/boot/initrd.gz".into()),
            cmdline: "console=ttyS0".into(),
            mac: "52:54:00:aa:bb:01".into(),
            generation_id: "11111111-2222-3333-4444-555555555555".into(),
            link_up: true,
            agent: false,
            commands: Commands::default(),
        }
    }

    #[test]
    fn each_bad_field_is_refused_by_its_name() {
        assert!(machine().check().is_ok());
        let disk = || MachineDisk { name: "d".into(), path: "/d".into() };
        type Damage<'a> = (&'a str, Box<dyn Fn(&mut Machine)>);
        let cases: [Damage<'_>; 11] = [
            ("name", Box::new(|m| m.name = "a,b".into())),
            ("name", Box::new(|m| m.name.clear())),
            ("uuid", Box::new(|m| m.uuid = "0".into())),
            ("generation_id", Box::new(|m| m.generation_id = "x1111111-2222-3333-4444-555555555555".into())),
            ("mac", Box::new(|m| m.mac = "01:00:00:00:00:00".into())),
            ("mac", Box::new(|m| m.mac = "52:54:00".into())),
            ("memory_bytes", Box::new(|m| m.memory_bytes += 1)),
            ("memory_bytes", Box::new(|m| m.memory_bytes = MEMORY_BYTES_MAX + (1 << 20))),
            ("disks", Box::new(move |m| m.disks = vec![disk(), disk()])),
            ("disks", Box::new(move |m| m.disks = vec![disk(); DISKS_MAX + 1])),
            ("cmdline", Box::new(|m| m.cmdline = "a\nb".into())),
        ];
        for (name, damage) in cases {
            let mut bad = machine();
            damage(&mut bad);
            match bad.check() {
                Err(Error::Machine { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
