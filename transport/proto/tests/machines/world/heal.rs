//! Whatever has happened: once store and nodes are back, everything settles, and every VM runs the right thing.

use super::instance::Images;
use super::{Action, State, Vm, World};

/// Far more than anything needs.
const ROUNDS_MAX: usize = 1_000;
/// From then on those who wait for somebody who is gone give up.
const PATIENCE_TICKS: usize = 10;

impl World {
    /// From here on nothing fails any more, but what was under way is lost. `Err`: what is wrong in the end.
    pub(crate) fn healed(&self) -> Result<(), &'static str> {
        let mut world = self.clone();
        world.attempts.iter_mut().for_each(|attempt| attempt.wire.clear());
        world.limits.lifecycle = 0;
        (world.now, world.urgent) = (form_proto::Millis(u64::MAX), true);
        let mut ticks = 0;
        for _ in 0..ROUNDS_MAX {
            if world.broken.is_some() {
                return Err("a rule is broken on the way to the end");
            }
            if world.is_settled() {
                return world.is_right();
            }
            ticks += usize::from(world.round(ticks > PATIENCE_TICKS));
        }
        Err("it does not settle")
    }

    /// Everyone gets an answer; timers fire when nothing else is to be done. True: they did.
    fn round(&mut self, impatient: bool) -> bool {
        let mut found = Vec::new();
        self.actions(&mut found);
        let is_tick = |action: &Action| matches!(action, Action::Tick { .. } | Action::CoordinatorTick { .. });
        let (ticks, work): (Vec<_>, Vec<_>) = found.into_iter().filter(|action| self.helps(*action)).partition(is_tick);
        if let Some(&action) = work.first() {
            if let Action::Deliver { attempt, instance, kind } = action {
                self.attempts[attempt].wire.take(instance, kind);
            }
            self.apply(action);
            return false;
        }
        if impatient {
            self.give_up();
        }
        ticks.into_iter().for_each(|tick| self.apply(tick));
        true
    }

    fn helps(&self, action: Action) -> bool {
        match action {
            Action::Lease { answered, .. }
            | Action::Reply { answered, .. }
            | Action::Outcome { answered, .. }
            | Action::Acknowledge { answered, .. }
            | Action::Read { answered, .. } => answered,
            // A node that was restarted aborts what it coordinated; a living one waits for its answer.
            Action::Transact { attempt, transaction } => {
                transaction == super::Transaction::Abort && self.attempts[attempt].coordinator.is_none()
            }
            Action::Begin
            | Action::Cancel { .. }
            | Action::Lose { .. }
            | Action::Fail { .. }
            | Action::Crash { .. }
            | Action::Expire
            | Action::Stop { .. }
            | Action::Start { .. }
            | Action::Delete { .. } => false,
            Action::Capture { .. }
            | Action::CoordinatorTick { .. }
            | Action::Deliver { .. }
            | Action::Written { .. }
            | Action::Step { .. }
            | Action::Tick { .. } => true,
        }
    }

    fn give_up(&mut self) {
        for attempt in 0..self.attempts.len() {
            self.tell_coordinator(attempt, form_proto::CoordinatorInput::Cancel);
        }
    }

    pub(crate) fn is_right(&self) -> Result<(), &'static str> {
        let committed = (0..self.attempts.len()).rev().find(|a| self.store.state(*a) == Some(State::Committed));
        if (0..self.attempts.len()).any(|a| self.store.state(a) == Some(State::Pending)) {
            return Err("an attempt is still pending");
        }
        let head = committed.map_or(0, super::instance::number_to_version);
        if head != self.store.head {
            return Err("the head is not the last commit");
        }
        for instance in self.instances.iter().filter(|instance| !instance.deleted) {
            if instance.version != head {
                return Err("not all or none");
            }
            // A host that is lost outside of an attempt leaves its VM to its user.
            let is_left = instance.current == Vm::Gone && (instance.stopped || self.limits.hosts);
            if instance.current != Vm::Running && !is_left {
                return Err("a VM does not run");
            }
            if instance.incoming != Vm::Gone || instance.images != Images::None {
                return Err("something is left over");
            }
        }
        for (number, row) in self.store.rows.iter().enumerate() {
            let missing = |(i, this): (usize, &super::Instance)| !this.deleted && row.acknowledged & (1 << i) == 0;
            if self.store.state(number) == Some(State::Committed) && self.instances.iter().enumerate().any(missing) {
                return Err("a commit is never acknowledged");
            }
        }
        Ok(())
    }
}
