//! A participant: one instance, its own vote, its own durable record.
//!
//! The only code that changes state is `handle`; each arm either asks the node for one effect and waits, or
//! persists the next record and waits. While a record is being written everything else is dropped: peers repeat
//! themselves, and the deadline asks the store again.

use alloc::collections::VecDeque;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::limits::{ASK_STORE_MS, EFFECT};
use crate::owed::Owed;
use crate::{AttemptId, Body, Epoch, Message, Millis, Outcome, OutcomeRead, Record, Refusal, Settled, Step, Work};

/// What a participant is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ParticipantInput {
    /// From the attempt's coordinator (the node has checked who it is and, for an offer, what is offered).
    Message(Message),
    /// The last [`ParticipantOutput::Persist`] is durable.
    Persisted,
    /// The images are verified and durable.
    Staged(AttemptId),
    /// They could not be built, or the offer was refused.
    StageFailed(AttemptId),
    /// The new VM is restored and paused.
    Activated(AttemptId),
    /// It could not be restored.
    ActivateFailed(AttemptId),
    /// The new VM runs, the old one is gone, the base has advanced.
    Finalized(AttemptId),
    /// The old VM runs, what was built is gone.
    RolledBack(AttemptId),
    /// The store knows that the outcome is carried out here.
    Acknowledged(AttemptId),
    /// It may not; it is told again.
    NotAcknowledged(AttemptId),
    /// The last effect that must succeed failed; it is tried again.
    EffectFailed(AttemptId),
    /// Answer to [`ParticipantOutput::ReadOutcome`].
    OutcomeRead(AttemptId, OutcomeRead),
    /// The deadline has come.
    Tick,
}

/// What a participant asks of its node. Each effect may be asked for again and must then do nothing twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParticipantOutput {
    /// Fetch, rebuild, verify, make durable, allocate what is needed until the end.
    Stage(Work),
    /// Stop staging and remove what it has built.
    Discard(AttemptId),
    /// Make this record durable, then answer `Persisted`.
    Persist(Record),
    /// To the coordinator.
    Send(Message),
    /// Pause the old VM, restore the new one, paused, link down.
    Activate(Work),
    /// Run the new VM (restoring it again if its process is gone), drop the old one, advance the base.
    Finalize(Work),
    /// Drop the new VM and the staged images, run the old one.
    RollBack(Work),
    /// Tell the store that this is carried out here; an attempt that it has not decided yet needs no telling.
    Acknowledge(Settled),
    /// Read the attempt's outcome from the store, linearizably.
    ReadOutcome(AttemptId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Idle,
    Staging(Work),
    At(Step, Work),
    /// Carried out; the record that says so is being written.
    Settling(Settled),
}

/// The machine of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Participant {
    state: State,
    settled: Option<Settled>,
    /// A record is on its way to the disk; what happens next is in `state` already.
    persisting: bool,
    /// An effect is running: `Activate`, `Finalize` or `RollBack`.
    acting: bool,
    /// When that was tried first.
    since: Millis,
    /// It has been carried out; its record waits until the store knows of the earlier attempt, which it replaces.
    carried_out: bool,
    /// Durably settled, and the store may not know it yet. A later attempt goes on beside that.
    owed: Owed,
    /// The outcome came while `Activate` was running.
    decided: Option<Outcome>,
    deadline: Option<Millis>,
    outputs: VecDeque<ParticipantOutput>,
}

impl Participant {
    /// From what is durable. Continues, or undoes, what was under way.
    #[must_use]
    pub fn recover(record: Record, now: Millis) -> Self {
        let mut this = Self {
            state: State::Idle,
            settled: record.settled,
            persisting: false,
            acting: false,
            since: now,
            carried_out: false,
            owed: Owed::default(),
            decided: None,
            deadline: None,
            outputs: VecDeque::new(),
        };
        if let Some(settled) = record.settled {
            // It may have been lost between its record and the store's.
            this.tell(settled, now);
        }
        match record.work {
            None => {}
            // The activation was cut short before it promised anything: undo it alone.
            Some((Step::Activating, work)) => this.persist(Step::RollingBack, work),
            Some((step @ (Step::Resuming | Step::RollingBack), work)) => {
                this.state = State::At(step, work);
                this.act();
            }
            Some((step @ (Step::Prepared | Step::Active), work)) => {
                this.state = State::At(step, work);
                this.ask_store(work.attempt, now);
            }
        }
        this
    }

    /// The attempt that holds the instance's lifecycle, if any: from its offer until it is durably carried out.
    #[must_use]
    pub fn attempt(&self) -> Option<AttemptId> {
        self.current().map(|(attempt, _)| attempt)
    }

    fn current(&self) -> Option<(AttemptId, Epoch)> {
        match self.state {
            State::Idle => None,
            State::Staging(work) | State::At(_, work) => Some((work.attempt, work.epoch)),
            State::Settling(settled) => Some((settled.attempt, settled.epoch)),
        }
    }

    /// The durable step it is at, or is writing.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        match self.state {
            State::At(step, _) => Some(step),
            State::Idle | State::Staging(_) | State::Settling(_) => None,
        }
    }

    /// When to hand in [`ParticipantInput::Tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let state = self.deadline.filter(|_| !self.persisting);
        [state, self.owed.deadline()].into_iter().flatten().min()
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<ParticipantOutput> {
        self.outputs.pop_front()
    }

    /// The one way in.
    pub fn handle(&mut self, input: ParticipantInput, now: Millis) {
        use ParticipantInput as In;
        match input {
            In::Acknowledged(a) => return self.acknowledged(a),
            In::NotAcknowledged(a) => return self.owed.not_acknowledged(a, now),
            In::Tick => self.outputs.extend(self.owed.due(now).map(ParticipantOutput::Acknowledge)),
            _ => {}
        }
        if self.persisting {
            if input == In::Persisted {
                self.persisting = false;
                self.persisted(now);
            }
            return;
        }
        match input {
            In::Message(message) => self.message(message, now),
            In::Persisted => {}
            In::Staged(a) => {
                if let State::Staging(work) = self.state
                    && work.attempt == a
                {
                    self.persist(Step::Prepared, work);
                }
            }
            In::StageFailed(a) => {
                if let State::Staging(work) = self.state
                    && work.attempt == a
                {
                    self.discard(work);
                    self.send(work.attempt, work.epoch, Body::Refused(Refusal::Stage));
                }
            }
            In::Activated(a) => self.activated(a, true),
            In::ActivateFailed(a) => self.activated(a, false),
            In::Finalized(a) => self.carried_out(a, Step::Resuming),
            In::RolledBack(a) => self.carried_out(a, Step::RollingBack),
            In::Acknowledged(_) | In::NotAcknowledged(_) => {}
            In::EffectFailed(a) => {
                if self.attempt() == Some(a) && self.acting {
                    self.acting = false;
                    self.deadline = Some(EFFECT.after(self.since, now));
                }
            }
            In::OutcomeRead(a, read) => {
                if self.attempt() == Some(a) {
                    self.outcome(read, now);
                }
            }
            In::Tick => self.tick(now),
        }
    }

    fn message(&mut self, message: Message, now: Millis) {
        let Message { attempt, epoch, body } = message;
        if let Some(settled) = self.settled
            && epoch <= settled.epoch
        {
            return match (settled.attempt == attempt, self.owed.is_none()) {
                (false, _) => self.send(attempt, epoch, Body::Refused(Refusal::Stale)),
                (true, true) => self.send(attempt, epoch, Body::Settled(settled.outcome)),
                // It is said once the store knows.
                (true, false) => {}
            };
        }
        let Some((current, current_epoch)) = self.current() else {
            return match body {
                Body::Offer { commit } => {
                    let work = Work { attempt, epoch, commit };
                    self.state = State::Staging(work);
                    self.deadline = Some(now.after(ASK_STORE_MS));
                    self.outputs.push_back(ParticipantOutput::Stage(work));
                }
                Body::Activate => self.send(attempt, epoch, Body::Refused(Refusal::NotPrepared)),
                // It refused the offer, or never saw it: nothing to undo, but the epoch is closed.
                Body::Decided(Outcome::Aborted) => self.close(attempt, epoch),
                _ => {}
            };
        };
        if current != attempt {
            if epoch <= current_epoch {
                self.send(attempt, epoch, Body::Refused(Refusal::Stale));
            } else if matches!(body, Body::Offer { .. }) {
                // The earlier attempt is decided, or begin(A) would not have made a later one: it is settled first.
                if !self.is_decided() {
                    self.ask_store(current, now);
                }
                self.send(attempt, epoch, Body::Refused(Refusal::Busy(current)));
            }
            return;
        }
        if epoch != current_epoch {
            return;
        }
        match (body, self.state) {
            (Body::Offer { commit }, State::At(Step::Prepared, work)) if commit == work.commit => {
                self.send(attempt, epoch, Body::Ready)
            }
            (Body::Activate, State::At(Step::Prepared, work)) => self.persist(Step::Activating, work),
            (Body::Activate, State::At(Step::Active, _)) => self.send(attempt, epoch, Body::Active),
            // What was said at once may have been lost, and the others stand still.
            (Body::Activate, State::At(Step::RollingBack, _)) => {
                self.send(attempt, epoch, Body::Refused(Refusal::Activate))
            }
            (Body::Activate, State::Staging(_)) => self.send(attempt, epoch, Body::Refused(Refusal::NotPrepared)),
            (Body::Decided(Outcome::Committed), _) => self.outcome(OutcomeRead::Committed, now),
            (Body::Decided(Outcome::Aborted), _) => self.outcome(OutcomeRead::Aborted, now),
            _ => {}
        }
    }

    /// The outcome is known here, and is being carried out.
    fn is_decided(&self) -> bool {
        matches!(self.state, State::At(Step::Resuming | Step::RollingBack, _) | State::Settling(_))
    }

    /// The store's word, read by ourselves or by the coordinator.
    fn outcome(&mut self, read: OutcomeRead, now: Millis) {
        if self.is_decided() {
            return;
        }
        let outcome = match read {
            OutcomeRead::Committed => Outcome::Committed,
            OutcomeRead::Aborted => Outcome::Aborted,
            OutcomeRead::Pending | OutcomeRead::Unknown => return self.deadline = Some(now.after(ASK_STORE_MS)),
        };
        match (outcome, self.state) {
            (_, State::Idle | State::Settling(_)) => {}
            (Outcome::Aborted, State::Staging(work)) => {
                self.discard(work);
                self.close(work.attempt, work.epoch);
            }
            // It can't have been counted on: its record was lost after its promise. It becomes ready, then goes on.
            (Outcome::Committed, State::Staging(_)) => self.deadline = Some(now.after(ASK_STORE_MS)),
            // A VM that is being restored can't be dropped: as soon as that has an end.
            (_, State::At(Step::Activating, _)) => self.decided = Some(outcome),
            (Outcome::Aborted, State::At(_, work)) => self.persist(Step::RollingBack, work),
            // The images are durable since `Prepared`: finalizing can restore from them.
            (Outcome::Committed, State::At(_, work)) => self.persist(Step::Resuming, work),
        }
    }

    fn activated(&mut self, attempt: AttemptId, restored: bool) {
        if let State::At(Step::Activating, work) = self.state
            && work.attempt == attempt
            && self.acting
        {
            self.acting = false;
            if !restored {
                // No promise that a record must hold first: an activation that was cut short is undone as well.
                self.send(attempt, work.epoch, Body::Refused(Refusal::Activate));
            }
            let step = match (self.decided.take(), restored) {
                (Some(Outcome::Committed), _) => Step::Resuming,
                (None, true) => Step::Active,
                (Some(Outcome::Aborted), _) | (None, false) => Step::RollingBack,
            };
            self.persist(step, work);
        }
    }

    fn carried_out(&mut self, attempt: AttemptId, step: Step) {
        if let State::At(at, work) = self.state
            && at == step
            && work.attempt == attempt
            && self.acting
        {
            self.acting = false;
            self.carried_out = true;
            self.settle_at_last();
        }
    }

    /// A record holds one settled attempt: the next one is recorded when the store needs not be told of the last any more.
    fn settle_at_last(&mut self) {
        if let State::At(step, Work { attempt, epoch, .. }) = self.state
            && self.carried_out
            && self.owed.is_none()
        {
            self.carried_out = false;
            let outcome = if step == Step::Resuming { Outcome::Committed } else { Outcome::Aborted };
            self.settle(Settled { attempt, epoch, outcome });
        }
    }

    fn tell(&mut self, settled: Settled, now: Millis) {
        self.owed.begin(settled, now);
        self.outputs.push_back(ParticipantOutput::Acknowledge(settled));
    }

    fn acknowledged(&mut self, attempt: AttemptId) {
        if let Some(settled) = self.owed.acknowledged(attempt) {
            self.send(settled.attempt, settled.epoch, Body::Settled(settled.outcome));
            self.settle_at_last();
        }
    }

    fn tick(&mut self, now: Millis) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match self.state {
            State::Idle | State::Settling(_) => {}
            State::Staging(work) => self.ask_store(work.attempt, now),
            State::At(_, work) if !self.is_decided() => self.ask_store(work.attempt, now),
            State::At(..) => self.act(),
        }
    }

    /// The record in `state` is durable: keep the promise that waited for it.
    fn persisted(&mut self, now: Millis) {
        self.since = now;
        match self.state {
            State::Idle | State::Staging(_) => {}
            State::At(Step::Prepared, work) => self.promise(work, Body::Ready, now),
            State::At(Step::Active, work) => self.promise(work, Body::Active, now),
            State::At(Step::Activating | Step::Resuming | Step::RollingBack, _) => self.act(),
            State::Settling(settled) => {
                self.state = State::Idle;
                self.tell(settled, now);
            }
        }
    }

    fn promise(&mut self, work: Work, body: Body, now: Millis) {
        self.send(work.attempt, work.epoch, body);
        self.deadline = Some(now.after(ASK_STORE_MS));
    }

    fn act(&mut self) {
        let output = match self.state {
            State::At(Step::Activating, work) => ParticipantOutput::Activate(work),
            State::At(Step::Resuming, work) => ParticipantOutput::Finalize(work),
            State::At(Step::RollingBack, work) => ParticipantOutput::RollBack(work),
            State::Idle | State::Staging(_) | State::Settling(_) | State::At(Step::Prepared | Step::Active, _) => {
                return;
            }
        };
        self.acting = true;
        self.deadline = None;
        self.outputs.push_back(output);
    }

    fn persist(&mut self, step: Step, work: Work) {
        self.state = State::At(step, work);
        self.write(Record { settled: self.settled, work: Some((step, work)) });
    }

    /// Nothing of the attempt is here: that is recorded, unless the store has first to be told of an earlier one. Then the
    /// coordinator says it again.
    fn close(&mut self, attempt: AttemptId, epoch: Epoch) {
        if self.owed.is_none() {
            self.settle(Settled { attempt, epoch, outcome: Outcome::Aborted });
        }
    }

    fn settle(&mut self, settled: Settled) {
        self.state = State::Settling(settled);
        self.settled = Some(settled);
        self.write(Record { settled: Some(settled), work: None });
    }

    fn write(&mut self, record: Record) {
        self.persisting = true;
        self.acting = false;
        self.deadline = None;
        self.outputs.push_back(ParticipantOutput::Persist(record));
    }

    fn discard(&mut self, work: Work) {
        self.state = State::Idle;
        self.deadline = None;
        self.outputs.push_back(ParticipantOutput::Discard(work.attempt));
    }

    fn ask_store(&mut self, attempt: AttemptId, now: Millis) {
        self.deadline = Some(now.after(ASK_STORE_MS));
        self.outputs.push_back(ParticipantOutput::ReadOutcome(attempt));
    }

    fn send(&mut self, attempt: AttemptId, epoch: Epoch, body: Body) {
        self.outputs.push_back(ParticipantOutput::Send(Message { attempt, epoch, body }));
    }
}
