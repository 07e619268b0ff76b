//! THE loop: the only place that owns the protocol's machines.

use std::collections::HashMap;
use std::sync::Arc;

use form_proto::{AttemptId, Coordinator, CoordinatorInput, Participant, ParticipantInput, Phase, Record};
use tokio::sync::mpsc;

use super::Node;
use super::{coordinate, participate};

/// Everything that can happen to a machine.
pub(crate) enum Input {
    /// begin(A) was applied: its coordinator begins.
    Begin(AttemptId, Box<Coordinator>),
    /// A participant is taken up again after a restart.
    Recover(String, Box<Participant>),
    /// To a coordinator.
    Coordinator(AttemptId, CoordinatorInput),
    /// To the participant of an instance.
    Participant(String, ParticipantInput),
}

/// Runs until the last sender is gone.
pub(crate) async fn run(node: Arc<Node>, mut inputs: mpsc::UnboundedReceiver<Input>) {
    let mut coordinators: HashMap<AttemptId, Coordinator> = HashMap::new();
    let mut participants: HashMap<String, Participant> = HashMap::new();
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
        tokio::select! {
            input = inputs.recv() => match input {
                None => return,
                Some(Input::Begin(id, coordinator)) => {
                    coordinators.insert(id, *coordinator);
                }
                Some(Input::Recover(instance, participant)) => {
                    participants.insert(instance, *participant);
                }
                Some(Input::Coordinator(id, input)) => {
                    if let Some(coordinator) = coordinators.get_mut(&id) {
                        coordinator.handle(input, node.now());
                    }
                }
                Some(Input::Participant(instance, input)) => participants
                    .entry(instance)
                    .or_insert_with(|| Participant::recover(Record::default(), node.now()))
                    .handle(input, node.now()),
            },
            () = timer => {
                let now = node.now();
                coordinators.values_mut().for_each(|c| c.handle(CoordinatorInput::Tick, now));
                participants.values_mut().for_each(|p| p.handle(ParticipantInput::Tick, now));
            }
        }
        for (id, coordinator) in &mut coordinators {
            while let Some(output) = coordinator.poll_output() {
                coordinate::carry_out(&node, *id, output);
            }
        }
        coordinators.retain(|_, c| !matches!(c.phase(), Phase::Settled(_)));
        for (instance, participant) in &mut participants {
            while let Some(output) = participant.poll_output() {
                participate::carry_out(&node, instance, output);
            }
            node.set_busy(instance, participant.attempt());
        }
    }
}
