//! The fake monitor of one node, with hooks before each of its steps.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use form_vmm_hooks::fake::{FakeVmm, Step};
use form_vmm_hooks::{
    Captured, Cuts, Error, Health, HostFacts, Keeps, Machine, Result, Vm, VmState, Vmm, WhilePaused, Written,
};

use crate::hooks::{Hooks, Point, vm};

/// Of one node; all nodes of a scene share the [`FakeVmm`] behind it, and their processes outlive a node.
pub(crate) struct Monitor {
    pub(crate) node: usize,
    pub(crate) fake: FakeVmm,
    pub(crate) hooks: Hooks,
}

struct Guest {
    vm: Arc<dyn Vm>,
    name: String,
    hooks: Hooks,
}

fn failed(name: &str) -> Error {
    Error::Command { name: name.into(), command: "hooked", reason: "failure asked for".into() }
}

async fn pass(hooks: &Hooks, name: &str, step: Step) -> Result<()> {
    let here = vm(name, step);
    match hooks.pass(&format!("{name}: {step:?}"), |point| *point == here).await {
        true => Ok(()),
        false => Err(failed(name)),
    }
}

/// It is done; whoever asked for it may never hear so.
async fn did<T>(hooks: &Hooks, name: &str, step: Step, done: T) -> Result<T> {
    match hooks.pass(&format!("{name}: {step:?} is done"), |_| false).await {
        true => Ok(done),
        false => Err(failed(name)),
    }
}

impl Monitor {
    fn guest(&self, machine: &Machine, vm: Arc<dyn Vm>) -> Arc<dyn Vm> {
        Arc::new(Guest { vm, name: machine.name.clone(), hooks: self.hooks.clone() })
    }
}

#[async_trait]
impl Vmm for Monitor {
    async fn host(&self) -> Result<HostFacts> {
        let what = format!("node {}: what is this host?", self.node);
        match self.hooks.pass(&what, |point| *point == Point::Host(self.node)).await {
            true => self.fake.host().await,
            false => Err(failed("host")),
        }
    }

    async fn boot(&self, machine: &Machine) -> Result<Arc<dyn Vm>> {
        pass(&self.hooks, &machine.name, Step::Boot).await?;
        let vm = self.guest(machine, self.fake.boot(machine).await?);
        did(&self.hooks, &machine.name, Step::Boot, vm).await
    }

    async fn restore(&self, machine: &Machine, device_state: Option<File>) -> Result<Arc<dyn Vm>> {
        pass(&self.hooks, &machine.name, Step::Restore).await?;
        let vm = self.guest(machine, self.fake.restore(machine, device_state).await?);
        did(&self.hooks, &machine.name, Step::Restore, vm).await
    }

    async fn can_probe(&self, machine: &Machine, health: &Health) -> Result<()> {
        self.fake.can_probe(machine, health).await
    }

    async fn probe(&self, machine: &Machine, device_state: Option<File>, health: &Health) -> Result<()> {
        pass(&self.hooks, &machine.name, Step::Probe).await?;
        self.fake.probe(machine, device_state, health).await?;
        did(&self.hooks, &machine.name, Step::Probe, ()).await
    }

    fn free_memory_bytes(&self) -> Option<u64> {
        self.fake.free_memory_bytes()
    }

    async fn end_others(&self, root: &Path, known: &HashSet<String>) -> Result<usize> {
        self.fake.end_others(root, known).await
    }

    async fn adopt(&self, machine: &Machine) -> Result<Option<Arc<dyn Vm>>> {
        pass(&self.hooks, &machine.name, Step::Adopt).await?;
        Ok(self.fake.adopt(machine).await?.map(|vm| self.guest(machine, vm)))
    }
}

#[async_trait]
impl Vm for Guest {
    fn pid(&self) -> u32 {
        self.vm.pid()
    }

    async fn state(&self) -> Result<VmState> {
        self.vm.state().await
    }

    async fn pause(&self) -> Result<()> {
        pass(&self.hooks, &self.name, Step::Pause).await?;
        self.vm.pause().await?;
        did(&self.hooks, &self.name, Step::Pause, ()).await
    }

    async fn resume(&self) -> Result<()> {
        pass(&self.hooks, &self.name, Step::Resume).await?;
        self.vm.resume().await?;
        did(&self.hooks, &self.name, Step::Resume, ()).await
    }

    async fn set_link(&self, up: bool) -> Result<()> {
        pass(&self.hooks, &self.name, Step::SetLink).await?;
        self.vm.set_link(up).await?;
        did(&self.hooks, &self.name, Step::SetLink, ()).await
    }

    async fn cut(&self, cuts: &Cuts) -> Written {
        self.vm.cut(cuts).await
    }

    async fn keep(&self, keeps: &Keeps) {
        self.vm.keep(keeps).await;
    }

    /// A failure at [`Step::CaptureState`] is one of the copy, in place of the copy.
    async fn capture(&self, state_out: Option<File>, cuts: Cuts, while_paused: WhilePaused) -> Result<Captured> {
        pass(&self.hooks, &self.name, Step::CaptureStop).await?;
        let here = vm(&self.name, Step::CaptureState);
        if self.hooks.pass(&format!("{}: the copy of its capture", self.name), |point| *point == here).await {
            let captured = self.vm.capture(state_out, cuts, while_paused).await?;
            return did(&self.hooks, &self.name, Step::CaptureResume, captured).await;
        }
        let failed = |_| Err(std::io::Error::other("no copy was made, as asked for"));
        self.vm.capture(state_out, cuts, Box::new(failed)).await
    }

    async fn save(&self, state_out: File) -> Result<()> {
        pass(&self.hooks, &self.name, Step::Save).await?;
        self.vm.save(state_out).await?;
        did(&self.hooks, &self.name, Step::Save, ()).await
    }

    async fn quit(&self) -> Result<()> {
        pass(&self.hooks, &self.name, Step::Quit).await?;
        self.vm.quit().await?;
        did(&self.hooks, &self.name, Step::Quit, ()).await
    }

    fn console(&self) -> PathBuf {
        self.vm.console()
    }
}
