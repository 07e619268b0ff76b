//! Rule by rule, one machine at a time.

use form_proto::{
    AttemptId, Body, CommitId, Coordinator, CoordinatorInput, CoordinatorOutput, Epoch, Member, Message, Millis,
    Outcome, Participant, ParticipantInput, ParticipantOutput, Record, Refusal, Step,
};

const COMMIT: CommitId = CommitId([9; 32]);

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
    p.handle(ParticipantInput::Acknowledged(AttemptId([1; 16])), Millis(0));
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

type Said = Vec<ParticipantOutput>;

const ATTEMPT: AttemptId = AttemptId([1; 16]);

fn at(epoch: u64, attempt: u8, body: Body) -> ParticipantInput {
    ParticipantInput::Message(Message { attempt: AttemptId([attempt; 16]), epoch: Epoch(epoch), body })
}

fn told(machine: &mut Participant, input: ParticipantInput, now: u64) -> Said {
    machine.handle(input, Millis(now));
    std::iter::from_fn(|| machine.poll_output()).collect()
}

/// A participant of attempt 1, epoch 1, that has been told `inputs` since.
fn after(inputs: &[ParticipantInput]) -> Participant {
    let mut machine = Participant::recover(Record::default(), Millis(0));
    told(&mut machine, at(1, 1, Body::Offer { commit: COMMIT }), 0);
    for input in inputs {
        told(&mut machine, *input, 0);
    }
    machine
}

fn prepared() -> Participant {
    after(&[ParticipantInput::Staged(ATTEMPT), ParticipantInput::Persisted])
}

fn answer(said: &[ParticipantOutput]) -> Option<Body> {
    match said {
        [ParticipantOutput::Send(Message { body, .. })] => Some(*body),
        _ => None,
    }
}

#[test]
fn rule_11_activate_is_valid_in_prepared_of_the_current_epoch_alone() {
    let activate = |epoch| at(epoch, 1, Body::Activate);
    let activates =
        |said: Said| matches!(said[..], [ParticipantOutput::Persist(Record { work: Some((Step::Activating, _)), .. })]);
    assert!(activates(told(&mut prepared(), activate(1), 0)));
    for epoch in [0, 2] {
        assert_eq!(told(&mut prepared(), activate(epoch), 0), [], "epoch {epoch}");
    }
    let refused = |machine: &mut Participant| answer(&told(machine, activate(1), 0));
    let never = Some(Body::Refused(Refusal::NotPrepared));
    assert_eq!(refused(&mut Participant::recover(Record::default(), Millis(0))), never, "nothing was offered");
    assert_eq!(refused(&mut after(&[])), never, "it is still being staged");
}

#[test]
fn rule_10_an_earlier_attempt_is_settled_before_a_later_offer_is_answered() {
    let offer = |epoch, attempt| at(epoch, attempt, Body::Offer { commit: COMMIT });
    let mut machine = prepared();
    let [ask, busy] = told(&mut machine, offer(2, 2), 0)[..] else { panic!("two outputs") };
    assert_eq!(ask, ParticipantOutput::ReadOutcome(ATTEMPT));
    assert_eq!(answer(&[busy]), Some(Body::Refused(Refusal::Busy(ATTEMPT))));
    let aborted = ParticipantInput::OutcomeRead(ATTEMPT, form_proto::OutcomeRead::Aborted);
    told(&mut machine, aborted, 0);
    for input in [ParticipantInput::Persisted, ParticipantInput::RolledBack(ATTEMPT), ParticipantInput::Persisted] {
        assert_eq!(machine.attempt(), Some(ATTEMPT));
        assert_eq!(
            told(&mut machine, offer(2, 2), 0).iter().filter(|o| matches!(o, ParticipantOutput::Stage(_))).count(),
            0
        );
        told(&mut machine, input, 0);
    }
    // It is done; that the store does not know it yet holds nobody up.
    assert!(matches!(told(&mut machine, offer(2, 2), 0)[..], [ParticipantOutput::Stage(_)]));
}

/// A later coordinator that repeats itself must not keep an earlier attempt from being settled.
#[test]
fn a_later_offer_does_not_put_off_what_is_tried_again() {
    let mut machine = prepared();
    told(&mut machine, at(1, 1, Body::Decided(Outcome::Committed)), 0);
    told(&mut machine, ParticipantInput::Persisted, 0);
    told(&mut machine, ParticipantInput::EffectFailed(ATTEMPT), 10);
    assert_eq!(machine.deadline(), Some(Millis(1_010)));
    told(&mut machine, at(2, 2, Body::Offer { commit: COMMIT }), 1_000);
    assert_eq!(machine.deadline(), Some(Millis(1_010)));
    assert!(matches!(told(&mut machine, ParticipantInput::Tick, 1_010)[..], [ParticipantOutput::Finalize(_)]));
}

#[test]
fn rule_17_a_restart_in_resuming_finalizes_again_and_settles() {
    let work = form_proto::Work { attempt: ATTEMPT, epoch: Epoch(1), commit: COMMIT };
    let mut machine = Participant::recover(Record { settled: None, work: Some((Step::Resuming, work)) }, Millis(0));
    assert_eq!(machine.poll_output(), Some(ParticipantOutput::Finalize(work)));
    // What comes late says nothing new.
    assert_eq!(told(&mut machine, at(1, 1, Body::Activate), 0), []);
    assert_eq!(told(&mut machine, at(1, 1, Body::Decided(Outcome::Aborted)), 0), []);
    let settled = form_proto::Settled { attempt: ATTEMPT, epoch: Epoch(1), outcome: Outcome::Committed };
    let record = Record { settled: Some(settled), work: None };
    assert_eq!(told(&mut machine, ParticipantInput::Finalized(ATTEMPT), 0), [ParticipantOutput::Persist(record)]);
    assert_eq!(told(&mut machine, ParticipantInput::Persisted, 0), [ParticipantOutput::Acknowledge(settled)]);
    let said = told(&mut machine, ParticipantInput::Acknowledged(ATTEMPT), 0);
    assert_eq!(answer(&said), Some(Body::Settled(Outcome::Committed)));
}

#[test]
fn rule_18_settled_is_said_when_the_store_knows() {
    let settled = form_proto::Settled { attempt: ATTEMPT, epoch: Epoch(4), outcome: Outcome::Committed };
    let mut machine = Participant::recover(Record { settled: Some(settled), work: None }, Millis(0));
    let first = machine.poll_output();
    assert_eq!(first, Some(ParticipantOutput::Acknowledge(settled)), "told again after a restart");
    assert_eq!(told(&mut machine, at(4, 1, Body::Decided(Outcome::Committed)), 0), []);
    let mut now = 0;
    for wait in [1_000, 1_000, 2_000, 4_000] {
        told(&mut machine, ParticipantInput::NotAcknowledged(ATTEMPT), now);
        assert_eq!(machine.deadline(), Some(Millis(now + wait)));
        now += wait;
        assert_eq!(told(&mut machine, ParticipantInput::Tick, now), [ParticipantOutput::Acknowledge(settled)]);
    }
    told(&mut machine, ParticipantInput::Acknowledged(ATTEMPT), now);
    assert_eq!((machine.attempt(), machine.deadline()), (None, None));
    assert_eq!(
        answer(&told(&mut machine, at(4, 1, Body::Activate), now)),
        Some(Body::Settled(Outcome::Committed)),
        "rule 11: it is answered with the recorded outcome"
    );
    assert_eq!(answer(&told(&mut machine, at(3, 9, Body::Activate), now)), Some(Body::Refused(Refusal::Stale)));
}

/// A record holds one settled attempt: a later one does not replace what the store has still to be told.
#[test]
fn rule_18_a_later_attempt_is_recorded_when_the_earlier_is_acknowledged() {
    let settled = form_proto::Settled { attempt: ATTEMPT, epoch: Epoch(1), outcome: Outcome::Committed };
    let later = AttemptId([2; 16]);
    let mut machine = Participant::recover(Record { settled: Some(settled), work: None }, Millis(0));
    assert_eq!(machine.poll_output(), Some(ParticipantOutput::Acknowledge(settled)));
    for input in [
        at(2, 2, Body::Offer { commit: COMMIT }),
        ParticipantInput::Staged(later),
        ParticipantInput::Persisted,
        at(2, 2, Body::Decided(Outcome::Aborted)),
        ParticipantInput::Persisted,
    ] {
        assert_ne!(told(&mut machine, input, 0), [], "{input:?}");
    }
    assert_eq!(told(&mut machine, ParticipantInput::RolledBack(later), 0), [], "it waits");
    assert_eq!(machine.attempt(), Some(later));
    let said = told(&mut machine, ParticipantInput::Acknowledged(ATTEMPT), 0);
    assert_eq!(answer(&said[..1]), Some(Body::Settled(Outcome::Committed)));
    let next = form_proto::Settled { attempt: later, epoch: Epoch(2), outcome: Outcome::Aborted };
    assert_eq!(said[1..], [ParticipantOutput::Persist(Record { settled: Some(next), work: None })]);
}

/// The store may say how it ended while the new VM is being restored: that is waited for, then what it said is done.
#[test]
fn an_outcome_that_comes_during_the_activation_is_carried_out_after_it() {
    for (outcome, restored, step) in [
        (Outcome::Aborted, true, Step::RollingBack),
        (Outcome::Aborted, false, Step::RollingBack),
        (Outcome::Committed, true, Step::Resuming),
        (Outcome::Committed, false, Step::Resuming),
    ] {
        let mut machine = prepared();
        told(&mut machine, at(1, 1, Body::Activate), 0);
        told(&mut machine, ParticipantInput::Persisted, 0);
        assert_eq!(told(&mut machine, at(1, 1, Body::Decided(outcome)), 0), []);
        let ended =
            if restored { ParticipantInput::Activated(ATTEMPT) } else { ParticipantInput::ActivateFailed(ATTEMPT) };
        let said = told(&mut machine, ended, 0);
        let Some(ParticipantOutput::Persist(Record { work: Some((at, _)), .. })) = said.last() else {
            panic!("{said:?}");
        };
        assert_eq!(*at, step);
    }
}

/// A coordinator of a source and a target that has been told `inputs`, and what it said to the last of them.
fn coordinator(inputs: &[CoordinatorInput]) -> (Coordinator, Vec<CoordinatorOutput>) {
    let plan = form_proto::Plan { attempt: ATTEMPT, epoch: Epoch(1), members: 2, give_up_at: Some(Millis(60_000)) };
    let mut machine = Coordinator::new(plan, Millis(0));
    let mut said = Vec::new();
    for input in inputs {
        machine.handle(*input, Millis(0));
        said = std::iter::from_fn(|| machine.poll_output()).collect();
    }
    (machine, said)
}

fn from(member: u16, body: Body) -> CoordinatorInput {
    CoordinatorInput::Message(Member(member), Message { attempt: ATTEMPT, epoch: Epoch(1), body })
}

/// Up to commit(A): everyone is active.
fn all_active() -> Vec<CoordinatorInput> {
    use CoordinatorInput as In;
    let ready = [In::Fit(Member(1)), In::Captured(COMMIT), from(0, Body::Ready), from(1, Body::Ready)];
    let active = [In::LeaseConfirmed, from(0, Body::Active), from(1, Body::Active)];
    [ready.as_slice(), active.as_slice()].concat()
}

#[test]
fn rule_15_nothing_decides_between_the_last_active_and_the_outcome() {
    let (mut machine, said) = coordinator(&all_active());
    assert_eq!(said.last(), Some(&CoordinatorOutput::Commit(COMMIT)));
    for input in [CoordinatorInput::Cancel, CoordinatorInput::Tick, from(1, Body::Refused(Refusal::Activate))] {
        machine.handle(input, Millis(u64::MAX));
        assert_eq!(machine.poll_output(), None, "{input:?}");
    }
    // Before it, each of them aborts.
    for (input, now) in [(CoordinatorInput::Cancel, 0), (CoordinatorInput::Tick, 60_000)] {
        let inputs = all_active();
        let (mut machine, _) = coordinator(&inputs[..inputs.len() - 1]);
        machine.handle(input, Millis(now));
        assert!(std::iter::from_fn(|| machine.poll_output()).any(|said| said == CoordinatorOutput::Abort));
    }
}

#[test]
fn rule_4_unknown_is_not_failed_and_an_outcome_is_read_before_it_is_announced() {
    use CoordinatorInput as In;
    for reply in [form_proto::StoreReply::Applied, form_proto::StoreReply::Unknown] {
        let mut inputs = all_active();
        inputs.push(In::StoreReplied(reply));
        let (mut machine, said) = coordinator(&inputs);
        assert_eq!(said, [CoordinatorOutput::ReadOutcome]);
        machine.handle(In::OutcomeRead(form_proto::OutcomeRead::Unknown), Millis(0));
        assert_eq!(machine.poll_output(), None);
        machine.handle(In::Tick, Millis(500));
        assert_eq!(machine.poll_output(), Some(CoordinatorOutput::Commit(COMMIT)), "the same is asked for again");
    }
}

/// A participant that has come to a later epoch is past this one, whatever became of its answer.
#[test]
fn a_participant_of_a_later_epoch_is_not_waited_for() {
    use CoordinatorInput as In;
    let mut inputs = all_active();
    inputs.extend([
        In::StoreReplied(form_proto::StoreReply::Unknown),
        In::OutcomeRead(form_proto::OutcomeRead::Aborted),
        from(0, Body::Settled(Outcome::Aborted)),
        from(1, Body::Refused(Refusal::Stale)),
    ]);
    let (machine, _) = coordinator(&inputs);
    assert_eq!(machine.phase(), form_proto::Phase::Settled(Outcome::Aborted));
}

#[test]
fn rule_10_a_busy_participant_is_offered_it_again() {
    let offered = [CoordinatorInput::Fit(Member(1)), CoordinatorInput::Captured(COMMIT)];
    let busy = from(1, Body::Refused(Refusal::Busy(AttemptId([7; 16]))));
    let (mut machine, said) = coordinator(&[offered.as_slice(), &[busy]].concat());
    assert_eq!((machine.phase(), said), (form_proto::Phase::Stage, vec![]));
    machine.handle(CoordinatorInput::Tick, Millis(2_000));
    let again = std::iter::from_fn(|| machine.poll_output());
    assert_eq!(again.filter(|said| matches!(said, CoordinatorOutput::Send(..))).count(), 2);
}
