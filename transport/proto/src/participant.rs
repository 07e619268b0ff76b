//! A participant: one instance, its own vote, its own durable record.
//!
//! The only code that changes state is `handle`; each arm either asks the node for one effect and waits, or
//! persists the next record and waits. While a record is being written everything else is dropped: peers repeat
//! themselves, and the deadline asks the store again.

use alloc::collections::VecDeque;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::limits::{ASK_STORE_MS, EFFECT};
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
    /// Carried out; the store does not know it for certain.
    Acknowledging(Settled),
}

/// The machine of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Participant {
    state: State,
    settled: Option<Settled>,
    /// A record is on its way to the disk; what happens next is in `state` already.
    persisting: bool,
    /// An effect is running: `Activate`, `Finalize`, `RollBack` or `Acknowledge`.
    acting: bool,
    /// When that was tried first.
    since: Millis,
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
            decided: None,
            deadline: None,
            outputs: VecDeque::new(),
        };
        match (record.work, record.settled) {
            (None, None) => {}
            // It may have been lost between its record and the store's.
            (None, Some(settled)) => {
                this.state = State::Acknowledging(settled);
                this.act();
            }
            // The activation was cut short before it promised anything: undo it alone.
            (Some((Step::Activating, work)), _) => this.persist(Step::RollingBack, work),
            (Some((step @ (Step::Resuming | Step::RollingBack), work)), _) => {
                this.state = State::At(step, work);
                this.act();
            }
            (Some((step @ (Step::Prepared | Step::Active), work)), _) => {
                this.state = State::At(step, work);
                this.ask_store(work.attempt, now);
            }
        }
        this
    }

    /// The attempt that the instance is locked to, if any: from its offer until the store knows that it is settled here.
    #[must_use]
    pub fn attempt(&self) -> Option<AttemptId> {
        self.current().map(|(attempt, _)| attempt)
    }

    fn current(&self) -> Option<(AttemptId, Epoch)> {
        match self.state {
            State::Idle => None,
            State::Staging(work) | State::At(_, work) => Some((work.attempt, work.epoch)),
            State::Acknowledging(settled) => Some((settled.attempt, settled.epoch)),
        }
    }

    /// The durable step it is at, or is writing.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        match self.state {
            State::At(step, _) => Some(step),
            State::Idle | State::Staging(_) | State::Acknowledging(_) => None,
        }
    }

    /// When to hand in [`ParticipantInput::Tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        if self.persisting { None } else { self.deadline }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<ParticipantOutput> {
        self.outputs.pop_front()
    }

    /// The one way in.
    pub fn handle(&mut self, input: ParticipantInput, now: Millis) {
        use ParticipantInput as In;
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
            In::Finalized(a) => self.carried_out(a, Step::Resuming, Outcome::Committed),
            In::RolledBack(a) => self.carried_out(a, Step::RollingBack, Outcome::Aborted),
            In::Acknowledged(a) => self.acknowledged(a),
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
            return match (settled.attempt == attempt, self.state) {
                (false, _) => self.send(attempt, epoch, Body::Refused(Refusal::Stale)),
                // It is said once the store knows.
                (true, State::Acknowledging(_)) => {}
                (true, _) => self.send(attempt, epoch, Body::Settled(settled.outcome)),
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
                Body::Decided(Outcome::Aborted) => self.settle(Settled { attempt, epoch, outcome: Outcome::Aborted }),
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
        matches!(self.state, State::At(Step::Resuming | Step::RollingBack, _) | State::Acknowledging(_))
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
            (_, State::Idle | State::Acknowledging(_)) => {}
            (Outcome::Aborted, State::Staging(work)) => {
                self.discard(work);
                self.settle(Settled { attempt: work.attempt, epoch: work.epoch, outcome });
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

    fn carried_out(&mut self, attempt: AttemptId, step: Step, outcome: Outcome) {
        if let State::At(at, work) = self.state
            && at == step
            && work.attempt == attempt
            && self.acting
        {
            self.settle(Settled { attempt, epoch: work.epoch, outcome });
        }
    }

    fn acknowledged(&mut self, attempt: AttemptId) {
        if let State::Acknowledging(settled) = self.state
            && settled.attempt == attempt
        {
            self.state = State::Idle;
            self.acting = false;
            self.deadline = None;
            self.send(settled.attempt, settled.epoch, Body::Settled(settled.outcome));
        }
    }

    fn tick(&mut self, now: Millis) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match self.state {
            State::Idle => {}
            State::Staging(work) => self.ask_store(work.attempt, now),
            State::At(_, work) if !self.is_decided() => self.ask_store(work.attempt, now),
            State::At(..) | State::Acknowledging(_) => self.act(),
        }
    }

    /// The record in `state` is durable: keep the promise that waited for it.
    fn persisted(&mut self, now: Millis) {
        self.since = now;
        match self.state {
            State::Idle | State::Staging(_) => {}
            State::At(Step::Prepared, work) => self.promise(work, Body::Ready, now),
            State::At(Step::Active, work) => self.promise(work, Body::Active, now),
            State::At(Step::Activating | Step::Resuming | Step::RollingBack, _) | State::Acknowledging(_) => self.act(),
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
            State::Acknowledging(settled) => ParticipantOutput::Acknowledge(settled),
            State::Idle | State::Staging(_) | State::At(Step::Prepared | Step::Active, _) => return,
        };
        self.acting = true;
        self.deadline = None;
        self.outputs.push_back(output);
    }

    fn persist(&mut self, step: Step, work: Work) {
        self.state = State::At(step, work);
        self.write(Record { settled: self.settled, work: Some((step, work)) });
    }

    fn settle(&mut self, settled: Settled) {
        self.state = State::Acknowledging(settled);
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
