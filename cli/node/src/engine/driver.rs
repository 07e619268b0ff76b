//! THE loop: the only place that owns the protocol's machines.

use std::collections::HashMap;
use std::sync::Arc;

use form_proto::{AttemptId, Coordinator, CoordinatorInput, Participant, ParticipantInput, Phase, Plan, Record};
use tokio::sync::mpsc;

use super::Node;
use super::traces::Traces;
use super::{coordinate, participate};

/// Everything that can happen to a machine.
pub(crate) enum Input {
    /// begin(A) was applied: its coordinator begins.
    Begin(Plan),
    /// A participant is taken up again after a restart.
    Recover(String, Record),
    /// To a coordinator.
    Coordinator(AttemptId, CoordinatorInput),
    /// To the participant of an instance.
    Participant(String, ParticipantInput),
}

/// Runs until the last sender is gone.
pub(crate) async fn run(node: Arc<Node>, mut inputs: mpsc::UnboundedReceiver<Input>) {
    let mut coordinators: HashMap<AttemptId, Coordinator> = HashMap::new();
    let mut participants: HashMap<String, Participant> = HashMap::new();
    let mut traces = Traces::new(node.layout.traces());
    loop {
        let deadline = coordinators
            .values()
            .filter_map(Coordinator::deadline)
            .chain(participants.values().filter_map(Participant::deadline))
            .min();
        let timer = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(node.instant(at).into()).await,
                None => std::future::pending().await,
            }
        };
        let due = tokio::select! {
            input = inputs.recv() => match input {
                None => return,
                Some(input) => vec![input],
            },
            () = timer => ticks(&coordinators, &participants, node.now()),
        };
        let now = node.now();
        for input in due {
            match input {
                Input::Begin(plan) => {
                    let (coordinator, outputs) = traces.start(&hex::encode(plan.attempt.0), plan, now);
                    coordinators.insert(plan.attempt, coordinator);
                    outputs.into_iter().for_each(|output| coordinate::carry_out(&node, plan.attempt, output));
                }
                Input::Coordinator(id, input) => {
                    let Some(coordinator) = coordinators.get_mut(&id) else { continue };
                    let outputs = traces.feed(&hex::encode(id.0), coordinator, input, now);
                    if matches!(coordinator.phase(), Phase::Settled(_)) {
                        coordinators.remove(&id);
                    }
                    outputs.into_iter().for_each(|output| coordinate::carry_out(&node, id, output));
                }
                Input::Recover(instance, record) => {
                    let (participant, outputs) = traces.start::<Participant>(&instance, record, now);
                    node.set_busy(&instance, participant.attempt());
                    participants.insert(instance.clone(), participant);
                    outputs.into_iter().for_each(|output| participate::carry_out(&node, &instance, output));
                }
                Input::Participant(instance, input) => {
                    let participant = participants
                        .entry(instance.clone())
                        .or_insert_with(|| traces.start(&instance, Record::default(), now).0);
                    let outputs = traces.feed(&instance, participant, input, now);
                    node.set_busy(&instance, participant.attempt());
                    outputs.into_iter().for_each(|output| participate::carry_out(&node, &instance, output));
                }
            }
        }
    }
}

/// Whose deadline has come.
fn ticks(
    coordinators: &HashMap<AttemptId, Coordinator>,
    participants: &HashMap<String, Participant>,
    now: form_proto::Millis,
) -> Vec<Input> {
    let coordinators = coordinators.iter().filter(|(_, c)| c.deadline().is_some_and(|at| at <= now));
    let participants = participants.iter().filter(|(_, p)| p.deadline().is_some_and(|at| at <= now));
    let coordinators = coordinators.map(|(id, _)| Input::Coordinator(*id, CoordinatorInput::Tick));
    let participants = participants.map(|(name, _)| Input::Participant(name.clone(), ParticipantInput::Tick));
    coordinators.chain(participants).collect()
}
