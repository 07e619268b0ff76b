//! A participant: one instance, its own vote, its own durable record.
//!
//! The only code that changes state is `handle`; each arm either asks the node for one effect and waits, or
//! persists the next record and waits. While a record is being written everything else is dropped: peers repeat
//! themselves, and the deadline asks the store again.

use alloc::collections::VecDeque;

use crate::{AttemptId, Body, Epoch, Message, Millis, Outcome, OutcomeRead, Record, Refusal, Settled, Step, Work};

/// How often a participant that waits for an outcome asks the store, in ms.
const ASK_STORE_MS: u64 = 3_000;
/// How long it waits before it tries an effect again that must succeed in the end, in ms.
const RETRY_MS: u64 = 1_000;

/// What a participant is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The last effect that must succeed failed; it is tried again.
    EffectFailed(AttemptId),
    /// Answer to [`ParticipantOutput::ReadOutcome`].
    OutcomeRead(AttemptId, OutcomeRead),
    /// The deadline has come.
    Tick,
}

/// What a participant asks of its node. Each effect may be asked for again and must then do nothing twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Read the attempt's outcome from the store, linearizably.
    ReadOutcome(AttemptId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Staging(Work),
    At(Step, Work),
}

/// The machine of one instance.
#[derive(Clone, Debug)]
pub struct Participant {
    state: State,
    settled: Option<Settled>,
    /// A record is on its way to the disk; what happens next is in `state` already.
    persisting: bool,
    /// An effect is running: `Activate`, `Finalize` or `RollBack`.
    acting: bool,
    /// An abort came while `Activate` was running.
    abort_after_activate: bool,
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
            abort_after_activate: false,
            deadline: None,
            outputs: VecDeque::new(),
        };
        match record.work {
            None => {}
            // The activation was cut short before it promised anything: undo it alone.
            Some((Step::Activating, work)) => this.persist(Step::RollingBack, work),
            Some((step @ (Step::Resuming | Step::RollingBack), work)) => {
                this.state = State::At(step, work);
                this.act();
            }
            Some((step, work)) => {
                this.state = State::At(step, work);
                this.ask_store(work.attempt, now);
            }
        }
        this
    }

    /// The attempt that the instance is locked to, if any.
    #[must_use]
    pub fn attempt(&self) -> Option<AttemptId> {
        match self.state {
            State::Idle => None,
            State::Staging(work) | State::At(_, work) => Some(work.attempt),
        }
    }

    /// The durable step it is at, or is writing.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        match self.state {
            State::At(step, _) => Some(step),
            State::Idle | State::Staging(_) => None,
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
            In::Activated(a) => self.activated(a, Step::Active),
            In::ActivateFailed(a) => self.activated(a, Step::RollingBack),
            In::Finalized(a) => self.carried_out(a, Step::Resuming, Outcome::Committed),
            In::RolledBack(a) => self.carried_out(a, Step::RollingBack, Outcome::Aborted),
            In::EffectFailed(a) => {
                if self.attempt() == Some(a) && self.acting {
                    self.acting = false;
                    self.deadline = Some(now.after(RETRY_MS));
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
            let answer =
                if settled.attempt == attempt { Body::Settled(settled.outcome) } else { Body::Refused(Refusal::Stale) };
            return self.send(attempt, epoch, answer);
        }
        let current = match self.state {
            State::Idle => None,
            State::Staging(work) => Some((None, work)),
            State::At(step, work) => Some((Some(step), work)),
        };
        let Some((step, work)) = current else {
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
        if work.attempt != attempt {
            // The earlier attempt is settled through the store before a later one is answered.
            if matches!(body, Body::Offer { .. }) {
                self.ask_store(work.attempt, now);
                self.send(attempt, epoch, Body::Refused(Refusal::Busy(work.attempt)));
            }
            return;
        }
        match (body, step) {
            (Body::Offer { .. }, Some(Step::Prepared)) => self.send(attempt, epoch, Body::Ready),
            (Body::Activate, Some(Step::Prepared)) => self.persist(Step::Activating, work),
            (Body::Activate, Some(Step::Active)) => self.send(attempt, epoch, Body::Active),
            (Body::Activate, None) => self.send(attempt, epoch, Body::Refused(Refusal::NotPrepared)),
            (Body::Decided(Outcome::Committed), _) => self.outcome(OutcomeRead::Committed, now),
            (Body::Decided(Outcome::Aborted), _) => self.outcome(OutcomeRead::Aborted, now),
            _ => {}
        }
    }

    /// The store's word, read by ourselves or by the coordinator.
    fn outcome(&mut self, read: OutcomeRead, now: Millis) {
        match (read, self.state) {
            (_, State::Idle) | (_, State::At(Step::Resuming | Step::RollingBack, _)) => {}
            (OutcomeRead::Pending | OutcomeRead::Unknown, _) => self.deadline = Some(now.after(ASK_STORE_MS)),
            (OutcomeRead::Aborted, State::Staging(work)) => {
                self.discard(work);
                self.settle(Settled { attempt: work.attempt, epoch: work.epoch, outcome: Outcome::Aborted });
            }
            (OutcomeRead::Aborted, State::At(Step::Activating, _)) => self.abort_after_activate = true,
            (OutcomeRead::Aborted, State::At(_, work)) => self.persist(Step::RollingBack, work),
            // A commit needs our `Active`, so this is the rule; any earlier step can only mean that our record was
            // lost after its promise. The images are durable since `Prepared`: finalizing restores from them.
            (OutcomeRead::Committed, State::At(Step::Prepared | Step::Active, work)) => {
                self.persist(Step::Resuming, work)
            }
            (OutcomeRead::Committed, State::At(Step::Activating, _) | State::Staging(_)) => {
                self.deadline = Some(now.after(ASK_STORE_MS));
            }
        }
    }

    fn activated(&mut self, attempt: AttemptId, step: Step) {
        if let State::At(Step::Activating, work) = self.state
            && work.attempt == attempt
            && self.acting
        {
            self.acting = false;
            if step == Step::RollingBack {
                // No promise that a record must hold first: an activation that was cut short is undone as well.
                self.send(attempt, work.epoch, Body::Refused(Refusal::Activate));
            }
            let step = if core::mem::take(&mut self.abort_after_activate) { Step::RollingBack } else { step };
            self.persist(step, work);
        }
    }

    fn carried_out(&mut self, attempt: AttemptId, step: Step, outcome: Outcome) {
        if let State::At(at, work) = self.state
            && at == step
            && work.attempt == attempt
            && self.acting
        {
            self.acting = false;
            self.settle(Settled { attempt, epoch: work.epoch, outcome });
        }
    }

    fn tick(&mut self, now: Millis) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        match self.state {
            State::Idle => {}
            State::At(Step::Resuming | Step::RollingBack, _) if !self.acting => self.act(),
            State::At(Step::Resuming | Step::RollingBack, _) => {}
            State::Staging(work) | State::At(_, work) => self.ask_store(work.attempt, now),
        }
    }

    /// The record in `state` (or `settled`) is durable: keep the promise that waited for it.
    fn persisted(&mut self, now: Millis) {
        match self.state {
            State::Idle => {
                if let Some(settled) = self.settled {
                    self.send(settled.attempt, settled.epoch, Body::Settled(settled.outcome));
                }
            }
            State::Staging(_) => {}
            State::At(step, work) => {
                match step {
                    Step::Prepared => self.send(work.attempt, work.epoch, Body::Ready),
                    Step::Active => self.send(work.attempt, work.epoch, Body::Active),
                    Step::Activating | Step::Resuming | Step::RollingBack => return self.act(),
                }
                self.deadline = Some(now.after(ASK_STORE_MS));
            }
        }
    }

    fn act(&mut self) {
        if let State::At(step, work) = self.state {
            self.acting = true;
            self.deadline = None;
            self.outputs.push_back(match step {
                Step::Activating => ParticipantOutput::Activate(work),
                Step::Resuming => ParticipantOutput::Finalize(work),
                Step::RollingBack | Step::Prepared | Step::Active => ParticipantOutput::RollBack(work),
            });
        }
    }

    fn persist(&mut self, step: Step, work: Work) {
        self.state = State::At(step, work);
        self.persisting = true;
        self.outputs.push_back(ParticipantOutput::Persist(Record { settled: self.settled, work: Some((step, work)) }));
    }

    fn settle(&mut self, settled: Settled) {
        self.state = State::Idle;
        self.settled = Some(settled);
        self.persisting = true;
        self.deadline = None;
        self.abort_after_activate = false;
        self.outputs.push_back(ParticipantOutput::Persist(Record { settled: Some(settled), work: None }));
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
