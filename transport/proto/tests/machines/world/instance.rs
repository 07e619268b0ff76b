//! One instance on a node of its own: its machine, what is durable, and its VMs. An effect is a row of steps; the process
//! or the host may be lost between any two of them.

use form_proto::{Millis, Participant, ParticipantInput, Record, Step, Work};

use super::store::{State, Store, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Vm {
    Gone,
    Paused,
    Running,
}

/// What staging has built. Once it is verified nothing writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Images {
    None,
    Building(usize),
    Verified(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Stage,
    Activate,
    Finalize,
    RollBack,
}

/// An effect that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Doing {
    pub(crate) act: Act,
    pub(crate) attempt: usize,
    pub(crate) step: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Instance {
    pub(crate) machine: Participant,
    pub(crate) durable: Record,
    /// A record on its way to the disk.
    pub(crate) writing: Option<Record>,
    pub(crate) doing: Option<Doing>,
    /// The attempt that it is telling the store it has carried out.
    pub(crate) telling: Option<usize>,
    /// The attempt whose outcome it has asked for.
    pub(crate) reading: Option<usize>,
    pub(crate) current: Vm,
    pub(crate) incoming: Vm,
    /// What `current` is.
    pub(crate) version: Version,
    pub(crate) images: Images,
    /// By its user.
    pub(crate) stopped: bool,
    pub(crate) deleted: bool,
}

pub(crate) fn number(work: Work) -> usize {
    usize::from(work.attempt.0[0])
}

impl Instance {
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            machine: Participant::recover(Record::default(), now),
            durable: Record::default(),
            writing: None,
            doing: None,
            telling: None,
            reading: None,
            current: Vm::Running,
            incoming: Vm::Gone,
            version: 0,
            images: Images::None,
            stopped: false,
            deleted: false,
        }
    }

    /// The node's process dies, and with `host` its VMs; then it starts again.
    pub(crate) fn crash(&mut self, host: bool, written: bool, now: Millis) {
        if let Some(record) = self.writing.take().filter(|_| written) {
            self.durable = record;
        }
        self.doing = None;
        self.telling = None;
        self.reading = None;
        if host {
            (self.current, self.incoming) = (Vm::Gone, Vm::Gone);
        }
        // What a node does at its start: leftovers of attempts that it holds no record of are removed.
        if self.durable.work.is_none() {
            self.incoming = Vm::Gone;
            self.images = Images::None;
            if self.current == Vm::Paused {
                self.current = Vm::Running;
            }
        }
        self.machine = Participant::recover(self.durable, now);
    }

    /// The next step of the running effect. `Err`: a rule is broken. `Ok(None)`: it goes on.
    pub(crate) fn step(
        &mut self,
        index: usize,
        source: bool,
        store: &mut Store,
    ) -> Result<Option<ParticipantInput>, &'static str> {
        use ParticipantInput as In;
        let Some(doing) = self.doing else { return Ok(None) };
        let (attempt, version) = (doing.attempt, number_to_version(doing.attempt));
        let id = super::attempt_id(attempt);
        let done = |input| Ok(Some(input));
        self.doing = Some(Doing { step: doing.step + 1, ..doing });
        match (doing.act, doing.step) {
            // It was stopped since the attempt began: the offer is refused.
            (Act::Stage, _) if self.stopped => done(In::StageFailed(id)),
            (Act::Stage, _) => {
                self.images = Images::Verified(attempt);
                done(In::Staged(id))
            }
            (Act::Activate, _) if source => done(In::Activated(id)),
            (Act::Activate, 0) if self.current != Vm::Running => done(In::ActivateFailed(id)),
            (Act::Activate, 0) => {
                if !self.is_at(Step::Activating, attempt) {
                    return Err("a VM is paused before Activating is durable");
                }
                self.current = Vm::Paused;
                Ok(None)
            }
            (Act::Activate, _) => {
                if self.images != Images::Verified(attempt) {
                    return Err("what is restored is not verified");
                }
                self.incoming = Vm::Paused;
                done(In::Activated(id))
            }
            (Act::Finalize, _) if source => {
                self.images = Images::None;
                self.version = version;
                store.current[index] = version;
                done(In::Finalized(id))
            }
            (Act::Finalize, 0) => {
                if self.version == version {
                    // The files were switched before a crash: its VM is the current one.
                    if self.current == Vm::Gone {
                        self.current = Vm::Paused;
                    }
                } else if self.incoming == Vm::Gone {
                    if self.images != Images::Verified(attempt) {
                        return Err("what is restored again is not verified");
                    }
                    self.incoming = Vm::Paused;
                }
                Ok(None)
            }
            (Act::Finalize, 1) => {
                if store.state(attempt) != Some(State::Committed) {
                    return Err("the new VM is resumed before the commit");
                }
                if !self.is_at(Step::Resuming, attempt) {
                    return Err("the new VM is resumed before Resuming is durable");
                }
                match self.version == version {
                    true => self.current = Vm::Running,
                    false => self.incoming = Vm::Running,
                }
                Ok(None)
            }
            (Act::Finalize, 2) => {
                if self.version != version {
                    self.current = self.incoming;
                    self.incoming = Vm::Gone;
                    self.version = version;
                }
                Ok(None)
            }
            (Act::Finalize, _) => {
                self.images = Images::None;
                store.current[index] = version;
                done(In::Finalized(id))
            }
            (Act::RollBack, 0) if !source => {
                self.incoming = Vm::Gone;
                Ok(None)
            }
            (Act::RollBack, _) => {
                if store.state(attempt) == Some(State::Committed) {
                    return Err("the old VM is resumed after the commit");
                }
                self.images = Images::None;
                if !source {
                    // Resumed, or booted from its own disk where its process or its host was lost.
                    self.current = Vm::Running;
                }
                done(In::RolledBack(id))
            }
        }
    }

    pub(crate) fn failed(&self) -> Option<ParticipantInput> {
        let doing = self.doing?;
        let id = super::attempt_id(doing.attempt);
        Some(match doing.act {
            Act::Stage => ParticipantInput::StageFailed(id),
            Act::Activate => ParticipantInput::ActivateFailed(id),
            Act::Finalize | Act::RollBack => ParticipantInput::EffectFailed(id),
        })
    }

    fn is_at(&self, step: Step, attempt: usize) -> bool {
        self.durable.work.is_some_and(|(at, work)| at == step && number(work) == attempt)
    }

    /// Nothing is under way, and nothing is waited for.
    pub(crate) fn is_idle(&self) -> bool {
        self.machine.attempt().is_none()
            && self.machine.deadline().is_none()
            && self.writing.is_none()
            && self.doing.is_none()
            && self.telling.is_none()
    }

    /// The attempt whose images it has promised to keep.
    pub(crate) fn promised(&self) -> Option<usize> {
        let (_, work) = self.durable.work.filter(|(step, _)| *step != Step::RollingBack)?;
        // Once the files are switched the images are the base.
        (self.version != number_to_version(number(work))).then(|| number(work))
    }
}

pub(crate) fn number_to_version(attempt: usize) -> Version {
    u8::try_from(attempt + 1).expect("few attempts")
}
