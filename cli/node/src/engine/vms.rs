//! The processes behind this node's instances.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use form_vmm_hooks::{Vm, Vmm};

use super::instance::LocalInstance;
use crate::spec::VmmSpec;

/// What runs instances on this node, one for each kind of spec.
pub(crate) struct Vmms {
    pub(crate) qemu: Arc<dyn Vmm>,
    pub(crate) files: Arc<dyn Vmm>,
}

impl Vmms {
    pub(crate) fn of(&self, local: &LocalInstance) -> &Arc<dyn Vmm> {
        match local.spec.vmm {
            VmmSpec::Qemu(_) => &self.qemu,
            VmmSpec::Files(_) => &self.files,
        }
    }
}

/// The VM that an instance is, and the one that it is about to become.
#[derive(Default, Clone)]
pub(crate) struct Slot {
    pub(crate) current: Option<Arc<dyn Vm>>,
    /// Restored and paused, waiting for the outcome.
    pub(crate) incoming: Option<Arc<dyn Vm>>,
}

/// By instance id.
#[derive(Default)]
pub(crate) struct Vms {
    slots: Mutex<HashMap<String, Slot>>,
}

impl Vms {
    pub(crate) fn slot(&self, instance: &str) -> Slot {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(instance).cloned().unwrap_or_default()
    }

    pub(crate) fn current(&self, instance: &str) -> Option<Arc<dyn Vm>> {
        self.slot(instance).current
    }

    pub(crate) fn change(&self, instance: &str, f: impl FnOnce(&mut Slot)) {
        f(self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(instance.to_owned()).or_default());
    }

    pub(crate) fn forget(&self, instance: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(instance);
    }
}
