//! The files that a guest runs on, opened once: what was looked at is what QEMU gets.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::args;
use crate::{Error, Machine, Result};

/// RAM and disks, for reading and writing; on probation for reading.
#[derive(Debug)]
pub(super) struct Images {
    ram: File,
    disks: Vec<File>,
}

impl Images {
    /// For a boot: RAM is a new file, not the old one emptied, which may be what somebody still reads.
    pub(super) fn with_new_ram(machine: &Machine) -> Result<Self> {
        let disks = disks(machine, true)?;
        let path = &machine.ram_path;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", path)(error)),
            _ => {}
        }
        let ram = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
        let ram = ram.and_then(|ram| ram.set_len(machine.memory_bytes).map(|()| ram));
        Ok(Images { ram: ram.map_err(Error::io("create", path))?, disks })
    }

    /// For a restore: RAM is there, and as long as it must be.
    pub(super) fn of(machine: &Machine) -> Result<Self> {
        Self::opened(machine, true)
    }

    /// For a restore that must not write to them.
    pub(super) fn to_read(machine: &Machine) -> Result<Self> {
        Self::opened(machine, false)
    }

    fn opened(machine: &Machine, writes: bool) -> Result<Self> {
        let disks = disks(machine, writes)?;
        let ram = open(machine, "RAM file", &machine.ram_path, writes)?;
        let len_bytes = ram.metadata().map_err(Error::io("look at", &machine.ram_path))?.len();
        if len_bytes != machine.memory_bytes {
            let problem = format!("is {}, but its RAM file has {len_bytes} bytes", machine.memory_bytes);
            return Err(Error::Machine { name: machine.name.clone(), field: "memory_bytes", problem });
        }
        Ok(Images { ram, disks })
    }

    /// Their numbers, which stay the same in the process that inherits them.
    pub(super) fn numbers(&self) -> args::Images {
        let disks = self.disks.iter().map(AsRawFd::as_raw_fd).collect();
        args::Images { ram: self.ram.as_raw_fd(), disks }
    }

    pub(super) fn into_descriptors(self) -> impl Iterator<Item = OwnedFd> {
        self.disks.into_iter().chain([self.ram]).map(OwnedFd::from)
    }
}

fn disks(machine: &Machine, writes: bool) -> Result<Vec<File>> {
    machine.disks.iter().map(|disk| open(machine, "disk", &disk.path, writes)).collect()
}

fn open(machine: &Machine, what: &'static str, path: &Path, writes: bool) -> Result<File> {
    let opened = File::options().read(true).write(writes).open(path);
    opened.map_err(|source| Error::File { name: machine.name.clone(), what, path: path.into(), source })
}
