//! What is in flight on this node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use form_proto::{Epoch, Step};

use super::db::{NodeDb, StoredParticipant};
use super::work::Role;
use super::{Node, blocking};
use crate::api::flight::{AttemptInFlight, FlightView, ParticipantInFlight};
use crate::error::ApiError;

/// The store is asked whether it is there at all; whoever watches does not wait for it longer than this.
const STORE_WAIT: Duration = Duration::from_millis(500);

/// All of it.
pub(crate) async fn view(node: &Arc<Node>) -> Result<FlightView, ApiError> {
    let own = node.id().to_string();
    match tokio::time::timeout(STORE_WAIT, node.store.node(&own)).await {
        Ok(answer) => node.store_silence.heard(&answer),
        Err(_) => node.store_silence.goes_on(),
    }
    let db = node.db.clone();
    let mut attempts: Vec<_> = node
        .attempts_in_flight()
        .iter()
        .map(|attempt| {
            let (phase, lasts) = attempt.phase_now().unwrap_or_default();
            AttemptInFlight {
                attempt_id: attempt.hex().to_owned(),
                cluster_id: attempt.record.cluster_id.clone(),
                instance_id: attempt.record.source_instance.clone(),
                epoch: attempt.record.epoch,
                phase,
                phase_ms: millis(lasts),
                age_ms: attempt.events.elapsed_ms(),
                decided: attempt.decided.load(Ordering::Acquire),
            }
        })
        .collect();
    attempts.sort_by(|a, b| a.attempt_id.cmp(&b.attempt_id));
    Ok(FlightView {
        node_id: own,
        store_silent_ms: node.store_silence.lasts().map(millis),
        attempts,
        participants: blocking("read the participants", move || participants(&db)).await?,
    })
}

/// The participants that are in an attempt, by name.
pub(super) fn participants(db: &NodeDb) -> Result<Vec<ParticipantInFlight>, ApiError> {
    let mut found = Vec::new();
    for StoredParticipant { instance, record, context } in db.participants()? {
        let (Some((step, work)), Some(context)) = (record.work, context) else { continue };
        let Epoch(epoch) = work.epoch;
        let name = db.instance(&instance)?.map_or_else(|| instance.clone(), |local| local.name);
        found.push(ParticipantInFlight {
            instance_id: instance,
            name,
            cluster_id: context.cluster,
            attempt_id: hex::encode(work.attempt.0),
            epoch,
            coordinator: context.coordinator,
            role: match context.role {
                Role::Source => "source",
                Role::Target => "target",
            }
            .to_owned(),
            step: match step {
                Step::Prepared => "prepared",
                Step::Activating => "activating",
                Step::Active => "active",
                Step::Resuming => "resuming",
                Step::RollingBack => "rolling_back",
            }
            .to_owned(),
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
