//! QEMU: processes started, found again, and spoken to over QMP. Works with 7.2 and newer.

mod args;
mod bitmaps;
mod capture;
mod emergency;
mod guest;
mod host;
mod nbd;
mod process;
mod qmp;
mod qmp_wire;
mod rundir;
mod start;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

pub use host::Accel;

use crate::{Error, HostFacts, Machine, Result, Vm, Vmm};
use guest::{Guest, QemuVm};

/// Which QEMU, and how.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The binary: a path, or a name to be found in `PATH`.
    pub binary: PathBuf,
    /// What runs the guests' instructions.
    pub accel: Accel,
}

impl Default for QemuConfig {
    fn default() -> Self {
        QemuConfig { binary: "qemu-system-x86_64".into(), accel: Accel::Auto }
    }
}

/// QEMU on this host.
#[derive(Debug)]
pub struct Qemu {
    config: QemuConfig,
    probed: Mutex<Option<(BinaryId, HostFacts)>>,
}

/// Device, inode and time of change: another file after an upgrade.
type BinaryId = (u64, u64, i64, i64);

impl Qemu {
    /// Nothing is looked at yet; [`Vmm::host`] does.
    pub fn new(config: QemuConfig) -> Self {
        Qemu { config, probed: Mutex::new(None) }
    }
}

#[async_trait]
impl Vmm for Qemu {
    async fn host(&self) -> Result<HostFacts> {
        let binary = find(&self.config.binary);
        let id = fs::metadata(&binary).map(|meta| (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()));
        let id = id.map_err(|source| Error::Binary { binary: self.config.binary.clone(), source })?;
        let mut probed = self.probed.lock().await;
        match &*probed {
            Some((known, facts)) if *known == id => Ok(facts.clone()),
            _ => {
                let facts = host::probe(&binary, self.config.accel).await?;
                tracing::info!(?facts, "QEMU");
                *probed = Some((id, facts.clone()));
                Ok(facts)
            }
        }
    }

    async fn boot(&self, machine: &Machine) -> Result<Arc<dyn Vm>> {
        machine.check()?;
        machine.check_files()?;
        let host = self.host().await?;
        start::refuse_second(machine)?;
        create_ram(machine)?;
        let started = start::start(&find(&self.config.binary), machine, &host, args::Start::Boot).await?;
        started.guest.set_link(machine.link_up).await?;
        started.guest.resume().await?;
        Ok(Arc::new(QemuVm::new(started.keep())))
    }

    async fn restore(&self, machine: &Machine, device_state: Option<File>) -> Result<Arc<dyn Vm>> {
        let device_state = device_state.ok_or_else(|| guest::needs_state("load", &machine.name))?;
        machine.check()?;
        machine.check_files()?;
        check_ram(machine)?;
        let host = self.host().await?;
        start::refuse_second(machine)?;
        let started = start::start(&find(&self.config.binary), machine, &host, args::Start::Incoming).await?;
        started.guest.load(device_state).await?;
        // The device state holds the link as it was captured.
        started.guest.set_link(false).await?;
        Ok(Arc::new(QemuVm::new(started.keep())))
    }

    async fn adopt(&self, machine: &Machine) -> Result<Option<Arc<dyn Vm>>> {
        machine.check()?;
        let guest: Option<Arc<Guest>> = start::adopt(machine).await?;
        Ok(guest.map(|guest| Arc::new(QemuVm::new(guest)) as Arc<dyn Vm>))
    }
}

/// As the shell finds it.
fn find(binary: &Path) -> PathBuf {
    if binary.components().count() != 1 {
        return binary.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(binary)).find(|path| path.is_file());
    found.unwrap_or_else(|| binary.into())
}

/// A new file, not the old one emptied: that may be what somebody still reads.
fn create_ram(machine: &Machine) -> Result<()> {
    let path = &machine.ram_path;
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", path)(error));
        }
        _ => {}
    }
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|file| file.set_len(machine.memory_bytes)).map_err(Error::io("create", path))
}

fn check_ram(machine: &Machine) -> Result<()> {
    let meta = machine.open("RAM file", &machine.ram_path)?.metadata();
    let len_bytes = meta.map_err(Error::io("look at", &machine.ram_path))?.len();
    if len_bytes != machine.memory_bytes {
        let problem = format!("is {}, but its RAM file has {len_bytes} bytes", machine.memory_bytes);
        return Err(Error::Machine { name: machine.name.clone(), field: "memory_bytes", problem });
    }
    Ok(())
}
