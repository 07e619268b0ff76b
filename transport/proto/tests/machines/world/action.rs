//! Everything that can happen next.

use form_proto::{CoordinatorInput, Millis, ParticipantInput, Phase};

use super::{Kind, State, Transaction, Vm, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The next attempt is begun by its source's node.
    Begin,
    /// Preflight and capture have gone well.
    Capture {
        attempt: usize,
    },
    Cancel {
        attempt: usize,
    },
    Lease {
        attempt: usize,
        answered: bool,
    },
    /// A transaction that was sent reaches the store; nobody hears of it.
    Transact {
        attempt: usize,
        transaction: Transaction,
    },
    Reply {
        attempt: usize,
        answered: bool,
    },
    Outcome {
        attempt: usize,
        answered: bool,
    },
    CoordinatorTick {
        attempt: usize,
    },
    Deliver {
        attempt: usize,
        instance: usize,
        kind: Kind,
    },
    /// What was sent will not arrive any more. An exploration needs no such thing: it may leave it under way for ever.
    Lose {
        attempt: usize,
        instance: usize,
        kind: Kind,
    },
    Written {
        instance: usize,
    },
    Step {
        instance: usize,
    },
    Fail {
        instance: usize,
    },
    /// The store's answer to what was carried out.
    Acknowledge {
        instance: usize,
        answered: bool,
    },
    /// The store's answer to what was asked.
    Read {
        instance: usize,
        answered: bool,
    },
    Tick {
        instance: usize,
    },
    Crash {
        instance: usize,
        host: bool,
        written: bool,
    },
    Expire,
    Stop {
        instance: usize,
    },
    Start {
        instance: usize,
    },
    Delete {
        instance: usize,
    },
}

impl World {
    pub(crate) fn actions(&self, found: &mut Vec<Action>) {
        if self.urgent && self.urgent_actions(found) {
            return;
        }
        self.of_attempts(found);
        for (instance, this) in self.instances.iter().enumerate().filter(|(_, this)| !this.deleted) {
            self.of_instance(instance, found);
            if this.machine.deadline().is_some_and(|at| at <= self.now) {
                found.push(Action::Tick { instance });
            }
            if self.limits.lifecycle > 0 && self.is_free(instance) {
                if this.current == Vm::Running {
                    found.push(Action::Stop { instance });
                } else {
                    found.extend([Action::Start { instance }, Action::Delete { instance }]);
                }
            }
        }
        if self.limits.expiries > 0 && self.store.locked {
            found.push(Action::Expire);
        }
        if let Some(&source) = self.limits.sources.get(self.attempts.len())
            && self.is_free(source)
            && self.instances[source].current == Vm::Running
            && self.store.can_begin(source)
        {
            found.push(Action::Begin);
        }
    }

    /// What has to be over before anything else: a write, an effect that has begun, a question to the store. True: there
    /// is such a thing.
    fn urgent_actions(&self, found: &mut Vec<Action>) -> bool {
        let is_urgent = |this: &super::Instance| {
            let amid = this.doing.is_some_and(|doing| doing.step > 0);
            this.writing.is_some() || this.reading.is_some() || this.telling.is_some() || amid
        };
        if let Some(instance) = self.instances.iter().position(is_urgent) {
            self.of_instance(instance, found);
            return true;
        }
        for (attempt, this) in self.attempts.iter().enumerate().filter(|(_, this)| this.coordinator.is_some()) {
            if this.asked.preflight != 0 || this.asked.capture {
                found.push(Action::Capture { attempt });
                if self.limits.cancels > 0 {
                    found.push(Action::Cancel { attempt });
                }
                return true;
            }
            if this.asked.outcome {
                found.extend([true, false].map(|answered| Action::Outcome { attempt, answered }));
                return true;
            }
        }
        false
    }

    fn of_instance(&self, instance: usize, found: &mut Vec<Action>) {
        let this = &self.instances[instance];
        if this.writing.is_some() {
            found.push(Action::Written { instance });
        }
        if this.telling.is_some() {
            let answers: &[bool] = if self.limits.failures > 0 { &[true, false] } else { &[true] };
            found.extend(answers.iter().map(|&answered| Action::Acknowledge { instance, answered }));
        }
        if this.reading.is_some() {
            found.extend([true, false].map(|answered| Action::Read { instance, answered }));
        }
        if this.doing.is_some() {
            found.push(Action::Step { instance });
            if self.limits.failures > 0 {
                found.push(Action::Fail { instance });
            }
        }
        if self.limits.crashes > 0 {
            let hosts: &[bool] = if self.limits.hosts { &[false, true] } else { &[false] };
            for &host in hosts {
                found.push(Action::Crash { instance, host, written: false });
                if this.writing.is_some() {
                    found.push(Action::Crash { instance, host, written: true });
                }
            }
        }
    }

    fn of_attempts(&self, found: &mut Vec<Action>) {
        for (attempt, this) in self.attempts.iter().enumerate() {
            let pending = self.store.state(attempt) == Some(State::Pending);
            for (sent, transaction) in [(this.commit_sent, Transaction::Commit), (this.abort_sent, Transaction::Abort)]
            {
                if sent && pending {
                    found.push(Action::Transact { attempt, transaction });
                }
            }
            for (instance, kind) in this.wire.all() {
                found.push(Action::Deliver { attempt, instance, kind });
            }
            let Some(coordinator) = &this.coordinator else { continue };
            if this.asked.preflight != 0 || this.asked.capture {
                found.push(Action::Capture { attempt });
            }
            if this.asked.lease {
                found.extend([true, false].map(|answered| Action::Lease { attempt, answered }));
            }
            if this.asked.reply.is_some() {
                found.extend([true, false].map(|answered| Action::Reply { attempt, answered }));
            }
            if this.asked.outcome {
                found.extend([true, false].map(|answered| Action::Outcome { attempt, answered }));
            }
            if coordinator.deadline().is_some_and(|at| at <= self.now) {
                found.push(Action::CoordinatorTick { attempt });
            }
            if self.limits.cancels > 0 && before_commit(coordinator.phase()) {
                found.push(Action::Cancel { attempt });
            }
        }
    }

    /// No attempt holds it: neither its participant's nor, as the source, one that is not decided.
    fn is_free(&self, instance: usize) -> bool {
        let commits = |a: &super::Attempt| {
            a.source == instance && a.coordinator.as_ref().is_some_and(|c| !matches!(c.phase(), Phase::Finalize(_)))
        };
        let this = &self.instances[instance];
        !this.deleted && this.machine.attempt().is_none() && !self.attempts.iter().any(commits)
    }

    pub(crate) fn apply(&mut self, action: Action) {
        match action {
            Action::Begin => self.begin(),
            Action::Capture { attempt } => self.captured(attempt),
            Action::Cancel { attempt } => {
                self.limits.cancels -= 1;
                self.tell_coordinator(attempt, CoordinatorInput::Cancel);
            }
            Action::Lease { attempt, answered } => self.lease(attempt, answered),
            Action::Transact { attempt, transaction } => {
                self.transact(attempt, transaction);
            }
            Action::Reply { attempt, answered } => self.replied(attempt, answered),
            Action::Outcome { attempt, answered } => self.outcome(attempt, answered),
            Action::CoordinatorTick { attempt } => self.tell_coordinator(attempt, CoordinatorInput::Tick),
            Action::Deliver { attempt, instance, kind } if kind.is_for_participant() => {
                self.heard(attempt, instance, kind);
            }
            Action::Deliver { attempt, instance, kind } => self.heard_by_coordinator(attempt, instance, kind),
            Action::Lose { attempt, instance, kind } => self.attempts[attempt].wire.take(instance, kind),
            Action::Written { instance } => self.written(instance),
            Action::Step { instance } => self.step(instance),
            Action::Fail { instance } => {
                self.limits.failures -= 1;
                self.fail(instance);
            }
            Action::Acknowledge { instance, answered } => {
                self.limits.failures -= u8::from(!answered);
                self.acknowledge(instance, answered);
            }
            Action::Read { instance, answered } => self.read(instance, answered),
            Action::Tick { instance } => self.tell(instance, ParticipantInput::Tick),
            Action::Crash { instance, host, written } => {
                self.limits.crashes -= 1;
                self.crash(instance, host, written);
            }
            Action::Expire => {
                self.limits.expiries -= 1;
                self.store.locked = false;
            }
            Action::Stop { instance } => {
                self.limits.lifecycle -= 1;
                (self.instances[instance].current, self.instances[instance].stopped) = (Vm::Gone, true);
            }
            Action::Start { instance } => {
                self.limits.lifecycle -= 1;
                (self.instances[instance].current, self.instances[instance].stopped) = (Vm::Running, false);
            }
            Action::Delete { instance } => {
                self.limits.lifecycle -= 1;
                if self.store.delete() {
                    self.instances[instance].deleted = true;
                    self.instances[instance].current = Vm::Gone;
                }
            }
        }
        self.check();
    }

    /// Time goes on. An exploration is at its end from the start.
    pub(crate) fn later(&mut self, now: Millis) {
        self.now = self.now.max(now);
    }

    /// When the next timer fires.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        let coordinators = self.attempts.iter().filter_map(|a| a.coordinator.as_ref()?.deadline());
        let participants = self.instances.iter().filter(|i| !i.deleted).filter_map(|i| i.machine.deadline());
        coordinators.chain(participants).min()
    }
}

fn before_commit(phase: Phase) -> bool {
    matches!(phase, Phase::Preflight | Phase::Capture | Phase::Stage | Phase::Confirm | Phase::Activate)
}
