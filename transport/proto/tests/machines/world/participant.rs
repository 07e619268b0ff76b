//! The participants' side: what their effects do to the world.

use form_proto::{
    Body, Epoch, Machine, Message, Outcome, OutcomeRead, Participant, ParticipantInput, ParticipantOutput, Step,
    trace_line, trace_start,
};

use super::instance::{Doing, Images, number};
use super::wire::Kind;
use super::{Act, State, World, attempt_id};

impl World {
    pub(crate) fn tell(&mut self, index: usize, input: ParticipantInput) {
        let now = self.now;
        let outputs = self.instances[index].machine.feed(input, now);
        self.trace(|| (format!("participant {index}"), trace_line::<Participant>(&input, now, &outputs)));
        outputs.into_iter().for_each(|output| self.says(index, output));
    }

    fn says(&mut self, index: usize, output: ParticipantOutput) {
        let this = &mut self.instances[index];
        let mut start = |act, id: form_proto::AttemptId| {
            let busy = this.doing.replace(Doing { act, attempt: usize::from(id.0[0]), step: 0 });
            busy.is_some()
        };
        let overlap = match output {
            ParticipantOutput::Stage(work) => {
                let overlap = start(Act::Stage, work.attempt);
                this.images = Images::Building(number(work));
                overlap
            }
            ParticipantOutput::Discard(_) => {
                this.doing = None;
                this.images = Images::None;
                false
            }
            ParticipantOutput::Persist(record) => this.writing.replace(record).is_some(),
            ParticipantOutput::Send(message) => {
                self.participant_sends(index, message);
                false
            }
            ParticipantOutput::Activate(work) => start(Act::Activate, work.attempt),
            ParticipantOutput::Finalize(work) => start(Act::Finalize, work.attempt),
            ParticipantOutput::RollBack(work) => start(Act::RollBack, work.attempt),
            ParticipantOutput::Acknowledge(settled) => {
                this.telling.replace(usize::from(settled.attempt.0[0])).is_some()
            }
            ParticipantOutput::ReadOutcome(attempt) => {
                this.reading = Some(usize::from(attempt.0[0]));
                false
            }
        };
        if overlap {
            self.broken("two effects of one participant run at once");
        }
    }

    fn participant_sends(&mut self, index: usize, message: Message) {
        let (attempt, record) = (usize::from(message.attempt.0[0]), self.instances[index].durable);
        let is_at = |step| record.work.is_some_and(|(at, work)| at == step && number(work) == attempt);
        let kept = match message.body {
            Body::Ready => is_at(Step::Prepared),
            Body::Active => is_at(Step::Active),
            Body::Settled(outcome) => {
                let told = self.store.rows[attempt].acknowledged & (1 << index) != 0;
                let settled = record.settled.is_some_and(|s| s.outcome == outcome && s.attempt == message.attempt);
                settled && (told || (outcome == Outcome::Aborted && !self.is_committed(attempt)))
            }
            _ => true,
        };
        if !kept {
            self.broken("a promise leaves before its record is durable");
        }
        self.sent += u64::from(!self.urgent);
        let this = &mut self.attempts[attempt];
        if this.coordinator.is_some() {
            this.wire.put(index, Kind::of(message.body));
        }
    }

    fn is_committed(&self, attempt: usize) -> bool {
        self.store.state(attempt) == Some(State::Committed)
    }

    pub(crate) fn heard(&mut self, attempt: usize, index: usize, kind: Kind) {
        let (id, epoch) = (attempt_id(attempt), Epoch(self.store.epoch(attempt)));
        if self.instances[index].deleted {
            // Its node answers: it holds nothing of the attempt.
            if matches!(kind, Kind::DecidedCommitted | Kind::DecidedAborted)
                && self.attempts[attempt].coordinator.is_some()
            {
                self.attempts[attempt].wire.put(index, Kind::RefusedStale);
            }
            return;
        }
        self.tell(index, ParticipantInput::Message(Message { attempt: id, epoch, body: kind.body(attempt) }));
    }

    pub(crate) fn written(&mut self, index: usize) {
        if let Some(record) = self.instances[index].writing.take() {
            self.instances[index].durable = record;
            self.tell(index, ParticipantInput::Persisted);
        }
    }

    pub(crate) fn step(&mut self, index: usize) {
        let Some(doing) = self.instances[index].doing else { return };
        let source = self.attempts[doing.attempt].source == index;
        match self.instances[index].step(index, source, &mut self.store) {
            Ok(None) => {}
            Ok(Some(input)) => {
                self.instances[index].doing = None;
                self.tell(index, input);
            }
            Err(rule) => self.broken(rule),
        }
    }

    pub(crate) fn fail(&mut self, index: usize) {
        if let Some(input) = self.instances[index].failed() {
            self.instances[index].doing = None;
            self.tell(index, input);
        }
    }

    /// The store is told what a participant has carried out; it may know it without an answer.
    pub(crate) fn acknowledge(&mut self, index: usize, answered: bool) {
        let Some(attempt) = self.instances[index].telling.take() else { return };
        self.store.acknowledge(attempt, index);
        let id = attempt_id(attempt);
        let input = if answered { ParticipantInput::Acknowledged(id) } else { ParticipantInput::NotAcknowledged(id) };
        self.tell(index, input);
    }

    /// What the store says to a participant that has asked. Whoever waits for an attempt of another node's whose lock has
    /// run out aborts it first; that may happen without an answer.
    pub(crate) fn read(&mut self, index: usize, answered: bool) {
        let Some(attempt) = self.instances[index].reading.take() else { return };
        if self.attempts[attempt].source != index {
            self.store.abort(attempt, false);
        }
        let read = if answered { self.store.read(attempt) } else { OutcomeRead::Unknown };
        self.tell(index, ParticipantInput::OutcomeRead(attempt_id(attempt), read));
    }

    /// Process or host of an instance's node is lost and comes back. A coordinator goes with it, for good: a pending
    /// attempt is aborted by its node.
    pub(crate) fn crash(&mut self, index: usize, host: bool, written: bool) {
        let now = self.now;
        for attempt in 0..self.attempts.len() {
            if self.attempts[attempt].source == index {
                self.drop_coordinator(attempt);
                self.attempts[attempt].abort_sent = true;
            }
        }
        if !self.instances[index].deleted {
            self.instances[index].crash(host, written, now);
            let (record, outputs) = (self.instances[index].durable, self.instances[index].machine.drain());
            self.trace(|| (format!("participant {index}"), trace_start::<Participant>(&record, now, &outputs)));
            outputs.into_iter().for_each(|output| self.says(index, output));
        }
    }
}
