//! A cluster whose nodes run the real machines: everything around them (store, wire, disks, VMs, time) is a value, and
//! everything that can happen next is an [`Action`]. Exploration takes all of them, simulation one at a time.

mod action;
mod coordinator;
mod heal;
mod instance;
mod participant;
mod store;
mod symmetry;
mod wire;

use std::collections::BTreeMap;

use form_proto::{AttemptId, CommitId, Millis, Participant, Record, trace_start};

pub(crate) use action::Action;
pub(crate) use coordinator::{Attempt, Transaction};
pub(crate) use instance::{Act, Instance, Vm};
pub(crate) use store::State;
pub(crate) use wire::Kind;

use store::Store;

/// What may happen at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    /// The instance whose node coordinates, by attempt.
    pub(crate) sources: Vec<usize>,
    /// A process (with it a host, if `hosts`) is lost and comes back.
    pub(crate) crashes: u8,
    pub(crate) hosts: bool,
    /// Stop, start and delete.
    pub(crate) lifecycle: u8,
    /// An effect fails, or the store does not take an acknowledgement.
    pub(crate) failures: u8,
    /// A lock runs out while its holder is merely slow.
    pub(crate) expiries: u8,
    /// Somebody, or the clock, gives an attempt up.
    pub(crate) cancels: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct World {
    /// In an exploration the end of time, at which every deadline that is set has come: so any timer may fire at any
    /// moment, and no counter of time makes two states of one.
    pub(crate) now: Millis,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) instances: Vec<Instance>,
    /// The rule that was broken.
    pub(crate) broken: Option<&'static str>,
    /// What commutes with everything that others do is not interleaved with it. A write may then still be lost or torn
    /// from what waits for it, and an effect cut short between any two of its steps.
    pub(crate) urgent: bool,
    /// Messages that were sent; counted by a simulation only.
    pub(crate) sent: u64,
    /// What each machine was told and answered, if a simulation wants to know.
    pub(crate) traces: Option<BTreeMap<String, String>>,
}

pub(crate) fn attempt_id(attempt: usize) -> AttemptId {
    AttemptId([u8::try_from(attempt).expect("few attempts"); 16])
}

pub(crate) fn commit_id(attempt: usize) -> CommitId {
    CommitId([instance::number_to_version(attempt); 32])
}

impl World {
    /// One source and `targets`, all running; the first attempt has begun.
    pub(crate) fn explored(targets: usize, limits: Limits) -> Self {
        Self::new(targets, limits, Millis(u64::MAX), None)
    }

    /// The same with a clock, and with traces of all machines.
    pub(crate) fn simulated(targets: usize, limits: Limits) -> Self {
        Self::new(targets, limits, Millis(0), Some(BTreeMap::new()))
    }

    fn new(targets: usize, limits: Limits, now: Millis, traces: Option<BTreeMap<String, String>>) -> Self {
        let mut world = Self {
            now,
            limits,
            store: Store::new(targets + 1),
            attempts: vec![],
            instances: (0..=targets).map(|_| Instance::new(now)).collect(),
            broken: None,
            urgent: now == Millis(u64::MAX),
            sent: 0,
            traces,
        };
        for index in 0..world.instances.len() {
            world.trace(|| (format!("participant {index}"), trace_start::<Participant>(&Record::default(), now, &[])));
        }
        world.begin();
        world
    }

    fn trace(&mut self, told: impl FnOnce() -> (String, String)) {
        if let Some(traces) = self.traces.as_mut() {
            let (name, text) = told();
            traces.entry(name).or_default().push_str(&text);
        }
    }

    fn broken(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    /// What must hold between any two steps, beside what each step checks for itself.
    fn check(&mut self) {
        for index in 0..self.instances.len() {
            let instance = &self.instances[index];
            let running = [instance.current, instance.incoming].into_iter().filter(|vm| *vm == Vm::Running).count();
            if running > 1 {
                self.broken("two VMs of one instance run");
            }
            let instance = &self.instances[index];
            if let Some(attempt) = instance.promised()
                && instance.images != instance::Images::Verified(attempt)
            {
                self.broken("verified images changed under a promise");
            }
            let instance = &self.instances[index];
            if let Some(settled) = instance.durable.settled {
                let attempt = usize::from(settled.attempt.0[0]);
                let committed = self.store.state(attempt) == Some(State::Committed);
                if committed != (settled.outcome == form_proto::Outcome::Committed) {
                    self.broken("an attempt has two outcomes");
                }
            }
        }
    }

    /// Nothing is left to do for anyone.
    pub(crate) fn is_settled(&self) -> bool {
        self.attempts.iter().all(|attempt| attempt.coordinator.is_none())
            && self.store.rows.iter().all(|row| row.state != State::Pending)
            && self.instances.iter().all(|i| i.deleted || i.is_idle())
    }
}
