//! The coordinator of one attempt, on the source's node.
//!
//! It is born when begin(A) has been applied, and lives in memory alone: after a restart nobody continues a pending attempt (the store aborts it), and what
//! was decided is in the store, where each participant reads it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::limits::{RESEND, TRANSACTION};
use crate::{AttemptId, Body, CommitId, Epoch, Member, Message, Millis, Outcome, Refusal};

/// What an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Plan {
    /// Its name.
    pub attempt: AttemptId,
    /// The epoch that begin(A) gave it.
    pub epoch: Epoch,
    /// Instances that vote, the source included.
    pub members: u16,
    /// Past it the attempt is aborted, as long as commit(A) was not asked for.
    pub give_up_at: Option<Millis>,
}

/// Where an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asking every target whether it could take the commit.
    Preflight,
    /// Pausing the source, and encoding what changed.
    Capture,
    /// Targets build and verify.
    Stage,
    /// A store write and enough lease before anything is paused.
    Confirm,
    /// Old VMs are paused, new ones restored.
    Activate,
    /// commit(A) is on its way: the one window in which everyone waits for the store.
    Commit,
    /// abort(A) is on its way.
    Abort,
    /// The outcome is known and is carried out.
    Finalize(Outcome),
    /// Everyone has acknowledged.
    Settled(Outcome),
}

/// What the store answered to commit(A) or abort(A). It decides nothing: the outcome is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum StoreReply {
    /// The transaction was applied, or had been.
    Applied,
    /// Its condition did not hold.
    Refused,
    /// No answer.
    Unknown,
}

/// A linearizable read of an attempt's outcome. An absent record means aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum OutcomeRead {
    /// Neither yet.
    Pending,
    /// Final.
    Committed,
    /// Final.
    Aborted,
    /// The store could not be read.
    Unknown,
}

/// What the coordinator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum CoordinatorInput {
    /// A target could take the commit.
    Fit(Member),
    /// A target could not, or did not answer.
    Unfit(Member),
    /// The source runs again and what was captured is frozen and encoded.
    Captured(CommitId),
    /// There is nothing to commit from; the source runs.
    CaptureFailed,
    /// From a participant.
    Message(Member, Message),
    /// The store took a write and the lease is long enough.
    LeaseConfirmed,
    /// It did not, or is not.
    LeaseLost,
    /// Answer to commit(A) or abort(A).
    StoreReplied(StoreReply),
    /// Answer to [`CoordinatorOutput::ReadOutcome`].
    OutcomeRead(OutcomeRead),
    /// Somebody wants it stopped. Ignored once commit(A) was asked for.
    Cancel,
    /// The deadline has come.
    Tick,
}

/// What the coordinator asks of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CoordinatorOutput {
    /// Ask a target whether it can take a commit.
    Preflight(Member),
    /// Capture the source; encode against what the targets hold.
    Capture,
    /// To a participant (the source's own included).
    Send(Member, Message),
    /// Prove that the store takes writes and that the lease lasts.
    ConfirmLease,
    /// The transaction commit(A).
    Commit(CommitId),
    /// The transaction abort(A).
    Abort,
    /// Read the outcome, linearizably.
    ReadOutcome,
    /// For people: a phase begins.
    Entered(Phase),
}

/// How far a participant is, as its coordinator has heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// It could take the commit.
    pub fit: bool,
    /// It was offered the commit.
    pub offered: bool,
    /// It has the images.
    pub ready: bool,
    /// It has restored them.
    pub active: bool,
    /// It has carried the outcome out, and the store knows.
    pub settled: bool,
}

/// The machine of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    plan: Plan,
    phase: Phase,
    /// When that began.
    since: Millis,
    commit: Option<CommitId>,
    members: Vec<Progress>,
    next: Option<Millis>,
    outputs: VecDeque<CoordinatorOutput>,
}

impl Coordinator {
    /// The attempt as begin(A) has just made it. Its first outputs are waiting.
    #[must_use]
    pub fn new(plan: Plan, now: Millis) -> Self {
        let mut this = Self {
            plan,
            phase: Phase::Preflight,
            since: now,
            commit: None,
            members: alloc::vec![Progress::default(); usize::from(plan.members)],
            next: None,
            outputs: VecDeque::new(),
        };
        this.enter(Phase::Preflight, now);
        this.outputs.extend((1..plan.members).map(|m| CoordinatorOutput::Preflight(Member(m))));
        this.preflight_done(now);
        this
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How far a participant is.
    #[must_use]
    pub fn member(&self, member: Member) -> Option<Progress> {
        self.members.get(usize::from(member.0)).copied()
    }

    /// When to hand in [`CoordinatorInput::Tick`].
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        let give_up = self.plan.give_up_at.filter(|_| self.may_give_up());
        match (self.next, give_up) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<CoordinatorOutput> {
        self.outputs.pop_front()
    }

    /// The one way in.
    pub fn handle(&mut self, input: CoordinatorInput, now: Millis) {
        use CoordinatorInput as In;
        match (input, self.phase) {
            (In::Fit(member), Phase::Preflight) => {
                if let Some(progress) = self.progress(member) {
                    progress.fit = true;
                }
                self.preflight_done(now);
            }
            (In::Captured(commit), Phase::Capture) => {
                self.commit = Some(commit);
                self.enter(Phase::Stage, now);
                self.resend(now);
            }
            (In::Message(member, message), _) => self.message(member, message, now),
            (In::LeaseConfirmed, Phase::Confirm) => {
                self.enter(Phase::Activate, now);
                self.resend(now);
            }
            (In::Unfit(_), Phase::Preflight)
            | (In::CaptureFailed, Phase::Capture)
            | (In::LeaseLost, Phase::Confirm) => self.abort(now),
            (In::Cancel, _) if self.may_give_up() => self.abort(now),
            // A refused commit(A) can only mean that it can never be applied: somebody else decided, or the head or
            // the membership moved. Close the attempt; what then stands in the store is read as always.
            (In::StoreReplied(StoreReply::Refused), Phase::Commit) => self.abort(now),
            (In::StoreReplied(_), Phase::Commit | Phase::Abort) => {
                self.next = None;
                self.outputs.push_back(CoordinatorOutput::ReadOutcome);
            }
            (In::OutcomeRead(read), Phase::Commit | Phase::Abort) => match read {
                OutcomeRead::Committed => self.decided(Outcome::Committed, now),
                OutcomeRead::Aborted => self.decided(Outcome::Aborted, now),
                OutcomeRead::Pending | OutcomeRead::Unknown => self.next = Some(TRANSACTION.after(self.since, now)),
            },
            (In::Tick, _) => self.tick(now),
            _ => {}
        }
    }

    fn message(&mut self, member: Member, message: Message, now: Millis) {
        if message.attempt != self.plan.attempt || message.epoch != self.plan.epoch {
            return;
        }
        let phase = self.phase;
        let Some(progress) = self.progress(member) else {
            return;
        };
        match (message.body, phase) {
            (Body::Ready, Phase::Stage) => {
                progress.ready = true;
                if self.members.iter().all(|m| m.ready) {
                    self.enter(Phase::Confirm, now);
                    self.outputs.push_back(CoordinatorOutput::ConfirmLease);
                }
            }
            (Body::Active, Phase::Activate) => {
                progress.active = true;
                if self.members.iter().all(|m| m.active) {
                    self.enter(Phase::Commit, now);
                    self.ask_commit();
                }
            }
            // It settles an earlier attempt first; the offer is made again.
            (Body::Refused(Refusal::Busy(_)), _) => {}
            (Body::Refused(_) | Body::Settled(Outcome::Aborted), Phase::Stage | Phase::Confirm | Phase::Activate) => {
                self.abort(now)
            }
            (Body::Settled(outcome), Phase::Finalize(decided)) if outcome == decided => {
                progress.settled = true;
                self.finalize_done(now);
            }
            // It is past this attempt: nobody comes to a later one before this one is settled there.
            (Body::Refused(Refusal::Stale), Phase::Finalize(_)) => {
                progress.settled = true;
                self.finalize_done(now);
            }
            _ => {}
        }
    }

    fn tick(&mut self, now: Millis) {
        if self.may_give_up() && self.plan.give_up_at.is_some_and(|at| now >= at) {
            return self.abort(now);
        }
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = None;
        match self.phase {
            Phase::Stage | Phase::Activate | Phase::Finalize(_) => self.resend(now),
            // Unknown is not failed: ask for the same again; the transaction compares, so twice is once.
            Phase::Commit => self.ask_commit(),
            Phase::Abort => self.outputs.push_back(CoordinatorOutput::Abort),
            _ => {}
        }
    }

    /// Everything up to commit(A) may be given up; nothing after it.
    fn may_give_up(&self) -> bool {
        matches!(self.phase, Phase::Preflight | Phase::Capture | Phase::Stage | Phase::Confirm | Phase::Activate)
    }

    fn preflight_done(&mut self, now: Millis) {
        if self.phase == Phase::Preflight && self.members.iter().skip(1).all(|m| m.fit) {
            self.enter(Phase::Capture, now);
            self.outputs.push_back(CoordinatorOutput::Capture);
        }
    }

    fn ask_commit(&mut self) {
        if let Some(commit) = self.commit {
            self.outputs.push_back(CoordinatorOutput::Commit(commit));
        }
    }

    fn abort(&mut self, now: Millis) {
        self.enter(Phase::Abort, now);
        self.outputs.push_back(CoordinatorOutput::Abort);
    }

    fn decided(&mut self, outcome: Outcome, now: Millis) {
        self.enter(Phase::Finalize(outcome), now);
        self.resend(now);
        self.finalize_done(now);
    }

    fn finalize_done(&mut self, now: Millis) {
        if let Phase::Finalize(outcome) = self.phase
            && self.members.iter().all(|m| m.settled || !m.offered)
        {
            self.enter(Phase::Settled(outcome), now);
        }
    }

    /// Says the phase's message to everyone who has not answered it.
    fn resend(&mut self, now: Millis) {
        let (attempt, epoch) = (self.plan.attempt, self.plan.epoch);
        for (index, progress) in (0..self.plan.members).zip(self.members.iter_mut()) {
            let body = match (self.phase, self.commit) {
                (Phase::Stage, Some(commit)) if !progress.ready => {
                    progress.offered = true;
                    Body::Offer { commit }
                }
                (Phase::Activate, _) if !progress.active => Body::Activate,
                (Phase::Finalize(outcome), _) if progress.offered && !progress.settled => Body::Decided(outcome),
                _ => continue,
            };
            self.outputs.push_back(CoordinatorOutput::Send(Member(index), Message { attempt, epoch, body }));
        }
        self.next = Some(RESEND.after(self.since, now));
    }

    fn progress(&mut self, member: Member) -> Option<&mut Progress> {
        self.members.get_mut(usize::from(member.0))
    }

    fn enter(&mut self, phase: Phase, now: Millis) {
        self.phase = phase;
        self.since = now;
        self.next = None;
        self.outputs.push_back(CoordinatorOutput::Entered(phase));
    }
}
