//! One attempt after another under loss, duplication, reordering, crashes and a store that forgets to answer.
//! A failing seed is in the panic message; the same seed replays the same run.

#![expect(clippy::unwrap_used, reason = "a test's own arithmetic")]

use std::collections::BTreeMap;

use form_proto::{
    AttemptId, Body, CommitId, Coordinator, CoordinatorInput, CoordinatorOutput, Epoch, Member, Message, Millis,
    Outcome, OutcomeRead, Participant, ParticipantInput, ParticipantOutput, Phase, Plan, Record, Refusal, Step,
    StoreReply, Timing,
};

const COMMIT: CommitId = CommitId([9; 32]);

/// xorshift64*: the run is a function of the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % sides
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

enum Event {
    ToCoordinator(CoordinatorInput),
    /// The life of the participant it belongs to: what a dead one was doing does not arrive.
    ToParticipant(usize, u32, ParticipantInput),
}

struct Guest {
    machine: Participant,
    life: u32,
    durable: Record,
    /// What the VM is: the commit runs, or is restored and paused, or the old one runs.
    runs_new: bool,
    activated: bool,
    sent_active: bool,
}

struct World {
    dice: Dice,
    attempt: AttemptId,
    outcome: OutcomeRead,
    coordinator: Option<Coordinator>,
    guests: Vec<Guest>,
    queue: Vec<(Millis, Event)>,
    now: Millis,
    faults: u32,
    messages: u64,
}

impl World {
    fn new(seed: u64, guests: usize, faults: u32) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.roll(2);
        }
        let attempt = AttemptId([1; 16]);
        let members = u16::try_from(guests).unwrap();
        let plan =
            Plan { attempt, epoch: Epoch(1), members, give_up_at: Some(Millis(60_000)), timing: Timing::default() };
        let guests = (0..guests)
            .map(|_| Guest {
                machine: Participant::recover(Record::default(), Millis(0)),
                life: 0,
                durable: Record::default(),
                runs_new: false,
                activated: false,
                sent_active: false,
            })
            .collect();
        Self {
            dice,
            attempt,
            outcome: OutcomeRead::Pending,
            coordinator: Some(Coordinator::new(plan)),
            guests,
            queue: vec![],
            now: Millis(0),
            faults,
            messages: 0,
        }
    }

    fn fault(&mut self, one_in: u64) -> bool {
        if self.faults > 0 && self.dice.one_in(one_in) {
            self.faults -= 1;
            return true;
        }
        false
    }

    fn push(&mut self, event: Event) {
        let at = self.now.after(1 + self.dice.roll(400));
        self.queue.push((at, event));
    }

    fn coordinator_says(&mut self, output: CoordinatorOutput) {
        use CoordinatorInput as In;
        let answer = match output {
            CoordinatorOutput::Preflight(member) => {
                if self.fault(20) {
                    In::Unfit(member)
                } else {
                    In::Fit(member)
                }
            }
            CoordinatorOutput::Capture => {
                if self.fault(20) {
                    In::CaptureFailed
                } else {
                    In::Captured(COMMIT)
                }
            }
            CoordinatorOutput::ConfirmLease => {
                if self.fault(20) {
                    In::LeaseLost
                } else {
                    In::LeaseConfirmed
                }
            }
            CoordinatorOutput::Send(member, message) => {
                return self.deliver(usize::from(member.0), message);
            }
            CoordinatorOutput::Commit(_) => self.store(OutcomeRead::Committed),
            CoordinatorOutput::Abort => self.store(OutcomeRead::Aborted),
            CoordinatorOutput::ReadOutcome => In::OutcomeRead(self.read()),
            CoordinatorOutput::Entered(Phase::Commit) => {
                assert!(self.guests.iter().all(|g| g.sent_active), "commit(A) asked for before everyone was active");
                return;
            }
            CoordinatorOutput::Entered(_) => return,
        };
        self.push(Event::ToCoordinator(answer));
    }

    /// A transaction: lost on the way there, applied, or applied and its reply lost.
    fn store(&mut self, wanted: OutcomeRead) -> CoordinatorInput {
        if self.fault(10) {
            return CoordinatorInput::StoreReplied(StoreReply::Unknown);
        }
        let reply = match self.outcome {
            OutcomeRead::Pending => {
                self.outcome = wanted;
                StoreReply::Applied
            }
            other if other == wanted => StoreReply::Applied,
            _ => StoreReply::Refused,
        };
        CoordinatorInput::StoreReplied(if self.fault(10) { StoreReply::Unknown } else { reply })
    }

    fn read(&mut self) -> OutcomeRead {
        if self.fault(10) { OutcomeRead::Unknown } else { self.outcome }
    }

    fn deliver(&mut self, index: usize, message: Message) {
        self.messages += 1;
        if let Body::Decided(outcome) = message.body {
            let stands = match self.outcome {
                OutcomeRead::Committed => Outcome::Committed,
                _ => Outcome::Aborted,
            };
            assert_eq!(outcome, stands, "announced what the store does not hold");
        }
        if self.fault(8) {
            return;
        }
        let life = u32::MAX;
        self.push(Event::ToParticipant(index, life, ParticipantInput::Message(message)));
        if self.fault(8) {
            self.push(Event::ToParticipant(index, life, ParticipantInput::Message(message)));
        }
    }

    fn guest_says(&mut self, index: usize, output: ParticipantOutput) {
        use ParticipantInput as In;
        let life = self.guests[index].life;
        let answer = match output {
            ParticipantOutput::Stage(w) => {
                if self.fault(20) {
                    In::StageFailed(w.attempt)
                } else {
                    In::Staged(w.attempt)
                }
            }
            ParticipantOutput::Discard(_) => return,
            ParticipantOutput::Persist(record) => {
                // The write may have happened or not when the process dies right here.
                let dies = self.fault(15);
                if !dies || self.dice.one_in(2) {
                    self.guests[index].durable = record;
                }
                if dies {
                    return self.crash(index);
                }
                In::Persisted
            }
            ParticipantOutput::Send(message) => {
                self.messages += 1;
                if message.body == Body::Active {
                    assert!(
                        matches!(self.guests[index].durable.work, Some((Step::Active, _))),
                        "promised before durable"
                    );
                    self.guests[index].sent_active = true;
                }
                if !self.fault(8) {
                    let member = Member(u16::try_from(index).unwrap());
                    self.push(Event::ToCoordinator(CoordinatorInput::Message(member, message)));
                }
                return;
            }
            ParticipantOutput::Activate(w) => {
                if self.fault(10) {
                    In::ActivateFailed(w.attempt)
                } else {
                    self.guests[index].activated = true;
                    In::Activated(w.attempt)
                }
            }
            ParticipantOutput::Finalize(w) => {
                assert_eq!(self.outcome, OutcomeRead::Committed, "resumed the new VM before the commit");
                if self.fault(10) {
                    In::EffectFailed(w.attempt)
                } else {
                    self.guests[index].runs_new = true;
                    In::Finalized(w.attempt)
                }
            }
            ParticipantOutput::RollBack(w) => {
                assert_ne!(self.outcome, OutcomeRead::Committed, "resumed the old VM after the commit");
                self.guests[index].activated = false;
                if self.fault(10) { In::EffectFailed(w.attempt) } else { In::RolledBack(w.attempt) }
            }
            ParticipantOutput::ReadOutcome(a) => In::OutcomeRead(a, self.read()),
        };
        self.push(Event::ToParticipant(index, life, answer));
    }

    fn crash(&mut self, index: usize) {
        let guest = &mut self.guests[index];
        guest.life += 1;
        guest.machine = Participant::recover(guest.durable, self.now);
        if index == 0 {
            // The source's node coordinates: its attempt dies with it, and its lock runs out.
            self.coordinator = None;
            if self.outcome == OutcomeRead::Pending {
                self.outcome = OutcomeRead::Aborted;
            }
        }
    }

    fn drain(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.coordinator.as_mut().and_then(Coordinator::poll_output) {
                quiet = false;
                self.coordinator_says(output);
            }
            for index in 0..self.guests.len() {
                while let Some(output) = self.guests[index].machine.poll_output() {
                    quiet = false;
                    self.guest_says(index, output);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..5_000 {
            self.drain();
            let timer = self.coordinator.as_ref().and_then(Coordinator::deadline);
            let timer = self.guests.iter().filter_map(|g| g.machine.deadline()).chain(timer).min();
            let event = self.queue.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(i, (at, _))| (i, *at));
            match (event, timer) {
                (None, None) => return,
                (Some((i, at)), timer) if timer.is_none_or(|t| at <= t) => {
                    self.now = self.now.max(at);
                    let (_, event) = self.queue.swap_remove(i);
                    match event {
                        Event::ToCoordinator(input) => {
                            if let Some(c) = self.coordinator.as_mut() {
                                c.handle(input, self.now);
                            }
                        }
                        Event::ToParticipant(g, life, input) if life == u32::MAX || life == self.guests[g].life => {
                            self.guests[g].machine.handle(input, self.now);
                        }
                        Event::ToParticipant(..) => {}
                    }
                }
                (_, Some(t)) => {
                    self.now = self.now.max(t);
                    if let Some(c) = self.coordinator.as_mut() {
                        c.handle(CoordinatorInput::Tick, self.now);
                    }
                    for g in &mut self.guests {
                        g.machine.handle(ParticipantInput::Tick, self.now);
                    }
                }
                (Some(_), None) => unreachable!(),
            }
            if self.faults > 0 && self.dice.one_in(150) {
                self.faults -= 1;
                let victim = usize::try_from(self.dice.roll(self.guests.len() as u64)).unwrap();
                self.crash(victim);
            }
        }
        panic!("does not settle");
    }

    fn check(&self) {
        let committed = self.outcome == OutcomeRead::Committed;
        for g in &self.guests {
            assert_eq!(g.machine.attempt(), None, "still in the attempt");
            assert_eq!(g.runs_new, committed, "all or none");
            assert!(committed || !g.activated, "a rolled back VM was left activated");
            if let Some(settled) = g.durable.settled {
                assert_eq!(settled.outcome == Outcome::Committed, committed);
                assert_eq!(settled.attempt, self.attempt);
            }
        }
    }
}

#[test]
fn promise_1_every_run_ends_all_or_none() {
    let mut ends = BTreeMap::new();
    for seed in 0..4_000u64 {
        let faults = u32::try_from(seed % 8).unwrap();
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, 2 + usize::try_from(seed % 3).unwrap(), faults);
            world.run();
            world.check();
            world.outcome
        });
        match run {
            Ok(outcome) => *ends.entry(format!("{outcome:?}")).or_insert(0) += 1,
            Err(_) => panic!("seed {seed}, {faults} faults: see the assertion above"),
        }
    }
    // Both ends must have been reached, or the simulation proves nothing.
    assert!(ends.len() == 2 && ends.values().all(|&n| n > 500), "{ends:?}");
}

#[test]
fn a_quiet_commit_takes_six_messages_a_participant() {
    for guests in [2, 3, 9] {
        let mut world = World::new(7, guests, 0);
        world.run();
        world.check();
        assert_eq!(world.outcome, OutcomeRead::Committed);
        assert_eq!(world.messages, 6 * guests as u64);
    }
}

#[test]
fn promise_5_twice_is_once() {
    let at = |body| ParticipantInput::Message(Message { attempt: AttemptId([1; 16]), epoch: Epoch(1), body });
    let mut p = Participant::recover(Record::default(), Millis(0));
    let drain = |p: &mut Participant| std::iter::from_fn(|| p.poll_output()).collect::<Vec<_>>();
    p.handle(at(Body::Offer { commit: COMMIT }), Millis(0));
    p.handle(at(Body::Offer { commit: COMMIT }), Millis(0));
    assert_eq!(drain(&mut p).len(), 1, "one staging for two offers");
    p.handle(at(Body::Decided(Outcome::Aborted)), Millis(0));
    drain(&mut p);
    p.handle(ParticipantInput::Persisted, Millis(0));
    drain(&mut p);
    // Delayed messages of the settled attempt, and of an older one, have no effect.
    for body in [Body::Activate, Body::Offer { commit: COMMIT }, Body::Decided(Outcome::Committed)] {
        p.handle(at(body), Millis(0));
        let out = drain(&mut p);
        assert!(
            matches!(out[..], [ParticipantOutput::Send(Message { body: Body::Settled(Outcome::Aborted), .. })]),
            "{body:?} -> {out:?}"
        );
    }
}

/// However long it takes to undo what it could not restore, the others need not stand still for it.
#[test]
fn a_failed_activation_is_told_before_it_is_undone() {
    let attempt = AttemptId([1; 16]);
    let at = |body| ParticipantInput::Message(Message { attempt, epoch: Epoch(1), body });
    let mut p = Participant::recover(Record::default(), Millis(0));
    let drain = |p: &mut Participant| std::iter::from_fn(|| p.poll_output()).collect::<Vec<_>>();
    for input in [
        at(Body::Offer { commit: COMMIT }),
        ParticipantInput::Staged(attempt),
        ParticipantInput::Persisted,
        at(Body::Activate),
        ParticipantInput::Persisted,
    ] {
        drain(&mut p);
        p.handle(input, Millis(0));
    }
    assert!(matches!(drain(&mut p)[..], [ParticipantOutput::Activate(_)]));
    p.handle(ParticipantInput::ActivateFailed(attempt), Millis(0));
    let out = drain(&mut p);
    let refused = Body::Refused(Refusal::Activate);
    assert!(
        matches!(out[..], [
            ParticipantOutput::Send(Message { body, .. }),
            ParticipantOutput::Persist(Record { work: Some((Step::RollingBack, _)), .. }),
        ] if body == refused),
        "{out:?}"
    );
}
