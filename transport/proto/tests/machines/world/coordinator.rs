//! The coordinators' side: what their effects do to the world.

use form_proto::{
    Body, Coordinator, CoordinatorInput, CoordinatorOutput, Epoch, Machine, Member, Message, OutcomeRead, Phase, Plan,
    Step, StoreReply, trace_line, trace_start,
};

use super::instance::{number, number_to_version};
use super::wire::{Kind, Wire};
use super::{State, World, attempt_id, commit_id};

/// How long a simulated attempt may take until commit(A) is asked for.
const GIVE_UP_MS: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Transaction {
    Commit,
    Abort,
}

/// Effects that were asked for and have not been answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    /// One bit per member.
    pub(crate) preflight: u8,
    pub(crate) capture: bool,
    pub(crate) lease: bool,
    pub(crate) reply: Option<Transaction>,
    pub(crate) outcome: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt {
    /// `None`: settled, or lost with its process.
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) source: usize,
    pub(crate) asked: Asked,
    /// The lease was confirmed.
    pub(crate) confirmed: bool,
    /// Transactions that may reach the store at any time from now on, whatever their sender has been told.
    pub(crate) commit_sent: bool,
    pub(crate) abort_sent: bool,
    pub(crate) wire: Wire,
}

impl World {
    pub(crate) fn begin(&mut self) {
        let attempt = self.attempts.len();
        let source = self.limits.sources[attempt];
        self.store.begin();
        let members = u16::try_from(self.instances.len()).expect("few");
        let epoch = Epoch(self.store.epoch(attempt));
        // In an exploration somebody else gives it up.
        let give_up_at = (!self.urgent).then(|| self.now.after(GIVE_UP_MS));
        let plan = Plan { attempt: attempt_id(attempt), epoch, members, give_up_at };
        let now = self.now;
        let mut coordinator = Coordinator::start(plan, now);
        let outputs = coordinator.drain();
        self.trace(|| (format!("coordinator {attempt}"), trace_start::<Coordinator>(&plan, now, &outputs)));
        self.attempts.push(Attempt {
            coordinator: Some(coordinator),
            source,
            asked: Asked::default(),
            confirmed: false,
            commit_sent: false,
            abort_sent: false,
            wire: Wire::new(self.instances.len()),
        });
        self.coordinator_says_all(attempt, outputs);
    }

    /// The source is the first member, the others follow in a circle.
    pub(crate) fn member(&self, attempt: usize, instance: usize) -> Member {
        let count = self.instances.len();
        Member(u16::try_from((instance + count - self.attempts[attempt].source) % count).expect("few"))
    }

    fn instance_of(&self, attempt: usize, member: Member) -> usize {
        (usize::from(member.0) + self.attempts[attempt].source) % self.instances.len()
    }

    pub(crate) fn tell_coordinator(&mut self, attempt: usize, input: CoordinatorInput) {
        let now = self.now;
        if let Some(coordinator) = self.attempts[attempt].coordinator.as_mut() {
            let outputs = coordinator.feed(input, now);
            self.trace(|| (format!("coordinator {attempt}"), trace_line::<Coordinator>(&input, now, &outputs)));
            self.coordinator_says_all(attempt, outputs);
        }
    }

    fn coordinator_says_all(&mut self, attempt: usize, outputs: Vec<CoordinatorOutput>) {
        outputs.into_iter().for_each(|output| self.coordinator_says(attempt, output));
        let settled = |c: &Coordinator| matches!(c.phase(), Phase::Settled(_));
        if self.attempts[attempt].coordinator.as_ref().is_some_and(settled) {
            self.drop_coordinator(attempt);
        }
    }

    pub(crate) fn drop_coordinator(&mut self, attempt: usize) {
        let attempt = &mut self.attempts[attempt];
        attempt.coordinator = None;
        attempt.asked = Asked::default();
        attempt.wire.drop_answers();
    }

    fn coordinator_says(&mut self, attempt: usize, output: CoordinatorOutput) {
        let this = &mut self.attempts[attempt];
        match output {
            CoordinatorOutput::Preflight(member) => this.asked.preflight |= 1 << member.0,
            CoordinatorOutput::Capture => this.asked.capture = true,
            CoordinatorOutput::ConfirmLease => this.asked.lease = true,
            CoordinatorOutput::Commit(_) => {
                (this.commit_sent, this.asked.reply) = (true, Some(Transaction::Commit));
                let active = |i: &super::Instance| {
                    i.durable.work.is_some_and(|(step, work)| step == Step::Active && number(work) == attempt)
                };
                // Asked again it may have been decided by others meanwhile.
                if self.store.state(attempt) == Some(State::Pending) && !self.instances.iter().all(active) {
                    self.broken("commit(A) is asked for before everyone is durably active");
                }
            }
            CoordinatorOutput::Abort => (this.abort_sent, this.asked.reply) = (true, Some(Transaction::Abort)),
            CoordinatorOutput::ReadOutcome => this.asked.outcome = true,
            CoordinatorOutput::Entered(_) => {}
            CoordinatorOutput::Send(member, message) => {
                if message.body == Body::Activate && !this.confirmed {
                    self.broken("something is paused before the lease is confirmed");
                }
                if let Body::Decided(outcome) = message.body {
                    let held = match self.store.read(attempt) {
                        OutcomeRead::Committed => Some(form_proto::Outcome::Committed),
                        OutcomeRead::Aborted => Some(form_proto::Outcome::Aborted),
                        OutcomeRead::Pending | OutcomeRead::Unknown => None,
                    };
                    if held != Some(outcome) {
                        self.broken("an outcome is announced that the store does not hold");
                    }
                }
                let instance = self.instance_of(attempt, member);
                self.attempts[attempt].wire.put(instance, Kind::of(message.body));
                self.sent += u64::from(!self.urgent);
            }
        }
    }

    pub(crate) fn heard_by_coordinator(&mut self, attempt: usize, instance: usize, kind: Kind) {
        let (id, epoch) = (attempt_id(attempt), Epoch(self.store.epoch(attempt)));
        let message = Message { attempt: id, epoch, body: kind.body(attempt) };
        self.tell_coordinator(attempt, CoordinatorInput::Message(self.member(attempt, instance), message));
    }

    /// Preflight of all targets and the capture: nothing durable depends on them, so they are one step.
    pub(crate) fn captured(&mut self, attempt: usize) {
        let asked = std::mem::take(&mut self.attempts[attempt].asked.preflight);
        for member in (0..8).filter(|member| asked & (1 << member) != 0) {
            self.tell_coordinator(attempt, CoordinatorInput::Fit(Member(member)));
        }
        if std::mem::take(&mut self.attempts[attempt].asked.capture) {
            self.tell_coordinator(attempt, CoordinatorInput::Captured(commit_id(attempt)));
        }
    }

    pub(crate) fn lease(&mut self, attempt: usize, answered: bool) {
        self.attempts[attempt].asked.lease = false;
        let confirmed = answered && self.store.holds_lock(attempt);
        self.attempts[attempt].confirmed |= confirmed;
        let input = if confirmed { CoordinatorInput::LeaseConfirmed } else { CoordinatorInput::LeaseLost };
        self.tell_coordinator(attempt, input);
    }

    /// A transaction reaches the store.
    pub(crate) fn transact(&mut self, attempt: usize, transaction: Transaction) -> StoreReply {
        match transaction {
            Transaction::Commit => self.store.commit(attempt, number_to_version(attempt)),
            Transaction::Abort => self.store.abort(attempt, true),
        }
    }

    pub(crate) fn replied(&mut self, attempt: usize, answered: bool) {
        let Some(transaction) = self.attempts[attempt].asked.reply.take() else { return };
        let reply = if answered { self.transact(attempt, transaction) } else { StoreReply::Unknown };
        self.tell_coordinator(attempt, CoordinatorInput::StoreReplied(reply));
    }

    pub(crate) fn outcome(&mut self, attempt: usize, answered: bool) {
        self.attempts[attempt].asked.outcome = false;
        let read = if answered { self.store.read(attempt) } else { OutcomeRead::Unknown };
        self.tell_coordinator(attempt, CoordinatorInput::OutcomeRead(read));
    }
}
