//! Who waits for whom in a cluster, in words.

use std::collections::BTreeMap;

use form_node::api::flight::{AttemptInFlight, FlightView, ParticipantInFlight};

use super::Line;
use crate::commands::manage::attempt::of_all;
use crate::commands::manage::clusters::Cluster;
use crate::units::short;
use crate::words::list;

/// A line for the attempt, one for each participant, and one that says what is waited for and what to do.
pub(super) fn waits(
    cluster: &Cluster,
    flight: &BTreeMap<String, FlightView>,
    unheard: &BTreeMap<String, String>,
) -> Vec<Line> {
    let of_this = |cluster_id: &str| cluster_id == cluster.id();
    let participants: Vec<&ParticipantInFlight> =
        flight.values().flat_map(|view| &view.participants).filter(|p| of_this(&p.cluster_id)).collect();
    let coordinated = flight.iter().find_map(|(node, view)| {
        let attempt = view.attempts.iter().filter(|attempt| of_this(&attempt.cluster_id)).max_by_key(|a| a.epoch)?;
        Some((node.as_str(), attempt))
    });
    let known = coordinated.map(|(_, attempt)| attempt.attempt_id.as_str()).or(cluster.attempt_id());
    let Some(id) = known.or_else(|| participants.first().map(|p| p.attempt_id.as_str())) else {
        return vec![Line::new(format!("cluster {}: no attempt in flight", short(cluster.id())))];
    };
    let coordinator =
        coordinated.map(|(node, _)| node).or_else(|| participants.first().map(|p| p.coordinator.as_str()));
    let away = coordinator.filter(|node| unheard.contains_key(*node));
    let mut lines = vec![match coordinated {
        Some((node, attempt)) => coordinating(node, attempt),
        None => Line::new(match (coordinator, away) {
            (_, Some(node)) => format!("attempt {}: its coordinator, node {}, does not answer", short(id), short(node)),
            (Some(_), None) => {
                format!("attempt {}: its coordinator was restarted; each participant ends it alone", short(id))
            }
            (None, _) => format!("attempt {}: nobody that answers works on it", short(id)),
        }),
    }];
    let phase = coordinated.map_or("", |(_, attempt)| attempt.phase.as_str());
    for (name, instance_id, node) in cluster.members() {
        let participant = participants.iter().find(|p| p.instance_id == instance_id);
        lines.extend(match (participant, unheard.get(node)) {
            (Some(participant), _) => Some(Line::new(format!("{name} {}", step(participant)))),
            (None, Some(why)) => Some(Line::new(format!("{name}: no word from its node {}: {why}", short(node)))),
            (None, None) if phase == "stage" => Some(Line::new(format!("{name} has not all images ready yet"))),
            (None, None) => None,
        });
    }
    let decided = coordinated.is_some_and(|(_, attempt)| attempt.decided)
        || participants.iter().any(|p| ["resuming", "rolling_back"].contains(&p.step.as_str()));
    let active: Vec<&str> = participants.iter().filter(|p| p.step == "active").map(|p| p.name.as_str()).collect();
    let silent_ms = flight.values().filter_map(|view| view.store_silent_ms).max();
    lines.extend(waited_for(id, decided, &active, silent_ms, away, phase));
    lines
}

fn coordinating(node: &str, attempt: &AttemptInFlight) -> Line {
    let AttemptInFlight { attempt_id, epoch, phase, phase_ms, age_ms, .. } = attempt;
    let (id, node) = (short(attempt_id), short(node));
    Line::keyed(
        format!("attempt {attempt_id} {phase}"),
        format!(
            "attempt {id}: {phase} for {} s, {}; begun {} s ago, epoch {epoch}, coordinated by node {node}",
            phase_ms / 1000,
            of_all(phase),
            age_ms / 1000,
        ),
    )
}

fn step(participant: &ParticipantInFlight) -> &'static str {
    match (participant.step.as_str(), participant.role.as_str()) {
        ("prepared", "source") => "is prepared: what it captured is durable; it runs, and waits for the others",
        ("prepared", _) => "is prepared: its new images are durable; it runs as before, and waits for the others",
        ("activating", _) => "is activating: it is paused while its new VM is put in place",
        ("active", "source") => "is active: it runs, and waits for the outcome",
        ("active", _) => "is active: paused, with the new VM at hand; it waits for the outcome",
        ("resuming", _) => "is resuming: it is committed, and goes on as the new commit",
        ("rolling_back", _) => "is rolling back: it is aborted, and goes on as it was",
        _ => "is in an attempt",
    }
}

/// What ends the waiting, where that is not said by the phase.
fn waited_for(
    id: &str,
    decided: bool,
    active: &[&str],
    silent_ms: Option<u64>,
    away: Option<&str>,
    phase: &str,
) -> Option<Line> {
    let key = |what: &str| format!("{id} {what}");
    if decided || active.is_empty() {
        return None;
    }
    let who = list(active);
    let wait = if active.len() == 1 { "waits" } else { "wait" };
    Some(match (silent_ms, away) {
        (Some(ms), _) => Line::keyed(
            key("blocked by the store"),
            format!(
                "{who} {wait} for the outcome; the state store has not answered for {} s: everyone waits (the one blocking \
                 window). Bring the store back: nothing else ends it, and nothing is lost meanwhile",
                ms / 1000
            ),
        ),
        (None, Some(node)) => Line::new(format!(
            "{who} {wait} for the outcome; the coordinator is away: when its lock has run out, within 15 s, they undo it by \
             themselves. Start node {} again",
            short(node)
        )),
        (None, None) if phase == "commit" => Line::new(format!(
            "{who} {wait} for the state store, which decides: everyone waits (the one blocking window)"
        )),
        (None, None) => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLUSTER: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";

    fn cluster() -> Cluster {
        let instance = |name: &str, node: &str| {
            json!({ "instance_id": name, "name": name, "node_id": node, "cluster_id": CLUSTER, "owner": "o",
                    "status": "Started", "snapshot_id": null, "local": false, "attempt_id": "a7" })
        };
        let instances = [("web-1", "n1"), ("web-2", "n2")].map(|(name, node)| instance(name, node));
        Cluster::of(instances.map(|view| serde_json::from_value(view).expect("a view")).into())
    }

    fn view(node: &str, silent_ms: Option<u64>, phase: Option<&str>, step: &str) -> FlightView {
        let attempt = |phase: &&str| {
            json!({ "attempt_id": "a7", "cluster_id": CLUSTER, "instance_id": "web-1", "epoch": 4, "phase": phase,
                    "phase_ms": 3400, "age_ms": 9000, "decided": false })
        };
        let (name, role) = if node == "n1" { ("web-1", "source") } else { ("web-2", "target") };
        let participant = json!({ "instance_id": name, "name": name, "cluster_id": CLUSTER, "attempt_id": "a7", "epoch": 4,
                                  "coordinator": "n1", "role": role, "step": step });
        let view = json!({ "node_id": node, "store_silent_ms": silent_ms, "participants": [participant],
                           "attempts": phase.as_ref().map(attempt).into_iter().collect::<Vec<_>>() });
        serde_json::from_value(view).expect("a view")
    }

    fn said(views: &[FlightView], unheard: &[(&str, &str)]) -> Vec<String> {
        let flight = views.iter().map(|view| (view.node_id.clone(), view.clone())).collect();
        let unheard = unheard.iter().map(|(node, why)| ((*node).to_owned(), (*why).to_owned())).collect();
        waits(&cluster(), &flight, &unheard).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_blocking_window_is_named_and_what_ends_it() {
        let away = said(&[view("n1", Some(12_900), Some("commit"), "active"), view("n2", None, None, "active")], &[]);
        assert_eq!(
            away[0],
            "attempt a7: commit for 3 s, waits for the state store, which decides; begun 9 s ago, epoch 4, coordinated by node n1"
        );
        assert_eq!(away[1], "web-1 is active: it runs, and waits for the outcome");
        assert_eq!(away[2], "web-2 is active: paused, with the new VM at hand; it waits for the outcome");
        assert_eq!(
            away[3],
            "web-1 and web-2 wait for the outcome; the state store has not answered for 12 s: everyone waits (the one \
             blocking window). Bring the store back: nothing else ends it, and nothing is lost meanwhile"
        );
        let there = said(&[view("n1", None, Some("commit"), "active"), view("n2", None, None, "active")], &[]);
        assert!(there[3].ends_with("which decides: everyone waits (the one blocking window)"), "{there:?}");
        let staging = said(&[view("n1", Some(1), Some("stage"), "prepared")], &[]);
        assert!(!staging.concat().contains("blocking"), "nobody is paused: {staging:?}");
    }

    #[test]
    fn a_coordinator_that_is_away() {
        let lost = said(&[view("n2", None, None, "active")], &[("n1", "no answer within 3 s")]);
        assert_eq!(
            lost,
            [
                "attempt a7: its coordinator, node n1, does not answer",
                "web-1: no word from its node n1: no answer within 3 s",
                "web-2 is active: paused, with the new VM at hand; it waits for the outcome",
                "web-2 waits for the outcome; the coordinator is away: when its lock has run out, within 15 s, they undo it by \
                 themselves. Start node n1 again",
            ]
        );
        let decided = said(&[view("n2", Some(5), None, "resuming")], &[]);
        assert!(!decided.concat().contains("blocking"), "{decided:?}");
    }

    #[test]
    fn time_alone_is_no_change() {
        let keys = |silent_ms| {
            let flight = BTreeMap::from([("n1".to_owned(), view("n1", Some(silent_ms), Some("commit"), "active"))]);
            waits(&cluster(), &flight, &BTreeMap::new()).into_iter().map(|line| line.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(1000), keys(60_000));
    }
}
