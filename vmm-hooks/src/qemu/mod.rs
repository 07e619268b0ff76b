//! QEMU: processes started, found again, and spoken to over QMP. Works with 7.2 and newer.

mod agent;
mod args;
mod bitmaps;
mod capture;
mod guest;
mod host;
mod images;
mod intent;
mod keeper;
mod memory;
mod nbd;
mod port;
mod probation;
mod process;
mod qmp;
mod qmp_wire;
mod rundir;
mod start;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

pub use host::Accel;
pub(crate) use keeper::Kept;

use crate::keeper::Keeping;
use crate::{Error, Health, HostFacts, Machine, Result, Vm, Vmm};
use guest::{Guest, QemuVm};
use images::Images;

/// Which QEMU, and how.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The binary: a path, or a name to be found in `PATH`.
    pub binary: PathBuf,
    /// What runs the guests' instructions.
    pub accel: Accel,
    /// What stands by during a capture.
    pub keeping: Keeping,
    /// The programs that health probes name.
    pub programs: PathBuf,
}

impl Default for QemuConfig {
    fn default() -> Self {
        QemuConfig {
            binary: "qemu-system-x86_64".into(),
            accel: Accel::Auto,
            keeping: Keeping::default(),
            programs: "commands".into(),
        }
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
        let images = Images::with_new_ram(machine)?;
        let started = start::start(&find(&self.config.binary), machine, &host, args::Start::Boot, images).await?;
        started.guest.set_link(machine.link_up).await?;
        started.guest.resume().await?;
        Ok(Arc::new(QemuVm::new(started.keep(), self.config.keeping.clone())))
    }

    async fn restore(&self, machine: &Machine, device_state: Option<File>) -> Result<Arc<dyn Vm>> {
        let device_state = device_state.ok_or_else(|| guest::needs_state("load", &machine.name))?;
        machine.check()?;
        machine.check_files()?;
        let images = Images::of(machine)?;
        let host = self.host().await?;
        start::refuse_second(machine)?;
        let started = start::start(&find(&self.config.binary), machine, &host, args::Start::Incoming, images).await?;
        started.guest.load(device_state).await?;
        // The device state holds the link as it was captured.
        started.guest.set_link(false).await?;
        Ok(Arc::new(QemuVm::new(started.keep(), self.config.keeping.clone())))
    }

    async fn can_probe(&self, machine: &Machine, health: &Health) -> Result<()> {
        probation::check(machine, health, &self.config.programs)
    }

    async fn probe(&self, machine: &Machine, device_state: Option<File>, health: &Health) -> Result<()> {
        let device_state = device_state.ok_or_else(|| guest::needs_state("load", &machine.name))?;
        machine.check()?;
        machine.check_files()?;
        let images = Images::to_read(machine)?;
        let host = self.host().await?;
        start::refuse_second(machine)?;
        let start = probation::start(health);
        let started = start::start(&find(&self.config.binary), machine, &host, start, images).await?;
        probation::run(started, device_state, health, &self.config.programs).await
    }

    async fn end_others(&self, root: &Path, known: &HashSet<String>) -> Result<usize> {
        start::end_others(root, known).await
    }

    fn free_memory_bytes(&self) -> Option<u64> {
        memory::free_bytes()
    }

    async fn adopt(&self, machine: &Machine) -> Result<Option<Arc<dyn Vm>>> {
        machine.check()?;
        let guest: Option<Arc<Guest>> = start::adopt(machine).await?;
        Ok(guest.map(|guest| Arc::new(QemuVm::new(guest, self.config.keeping.clone())) as Arc<dyn Vm>))
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
