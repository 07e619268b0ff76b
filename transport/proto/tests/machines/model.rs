//! Exhaustive exploration with stateright: every order of every step, message, fault and timer within a scenario's limits.
//!
//! The bounded scenarios run with every test; the full ones take long and a release build:
//! `FORM_MODEL=full cargo test --locked --release -p form-proto --test machines model::full -- --nocapture --test-threads 1`.

use stateright::{Checker, DiscoveryClassification, HasDiscoveries, Model, Property};

use crate::world::{Action, Limits, State, World};

const THREADS: usize = 2;

struct Scenario {
    targets: usize,
    limits: Limits,
}

impl Model for Scenario {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::explored(self.targets, self.limits.clone())]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        state.actions(actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        next.apply(action);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every rule holds", |_, world: &World| world.broken.is_none()),
            Property::always("healed, it settles with all or none", |_, world: &World| world.healed().is_ok()),
            Property::sometimes("it commits", |_, world: &World| {
                world.is_settled() && world.store.state(0) == Some(State::Committed)
            }),
            Property::sometimes("it aborts", |scenario, world: &World| {
                scenario.never_aborts() || world.is_settled() && world.store.state(0) == Some(State::Aborted)
            }),
        ]
    }
}

impl Scenario {
    /// Nothing in it gives a reason to.
    fn never_aborts(&self) -> bool {
        let Limits { crashes, lifecycle, failures, expiries, cancels, .. } = self.limits;
        crashes + lifecycle + failures + expiries + cancels == 0
    }
}

/// An attempt that only messages, timers and the store's answers hinder: they may do so as often as they like.
fn calm() -> Limits {
    Limits { sources: vec![0], crashes: 0, hosts: false, lifecycle: 0, failures: 0, expiries: 0, cancels: 0 }
}

fn explore(name: &str, targets: usize, limits: Limits) {
    let began = std::time::Instant::now();
    let checker = Scenario { targets, limits }.checker().threads(THREADS).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        if matches!(checker.discovery_classification(property), DiscoveryClassification::Counterexample) {
            let last = path.last_state();
            let why = last.broken.or(last.healed().err()).unwrap_or_default();
            let steps: Vec<_> = path.into_actions().into_iter().map(|action| format!("  {action:?}")).collect();
            panic!("{name}: it does not hold that {property}: {why}\n{}", steps.join("\n"));
        }
    }
    checker.assert_properties();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("model: {name}: {states} states, up to {depth} steps, {} s", began.elapsed().as_secs());
}

fn full() -> bool {
    std::env::var_os("FORM_MODEL").is_some_and(|bound| bound == "full")
}

/// Lost processes and hosts, effects that fail, somebody who cancels.
#[test]
fn promise_1_two_targets_and_a_lost_node() {
    let limits = Limits { crashes: 1, hosts: true, cancels: 1, ..calm() };
    explore("two targets, a lost node", 2, limits);
}

#[test]
fn promise_1_three_targets() {
    explore("three targets, somebody cancels", 3, Limits { cancels: 1, ..calm() });
}

#[test]
fn promise_1_one_target_and_two_lost_nodes() {
    let limits = Limits { crashes: 2, hosts: true, expiries: 1, cancels: 1, ..calm() };
    explore("one target, two lost nodes, a lock that runs out", 1, limits);
}

#[test]
fn promise_6_a_second_coordinator() {
    let limits = Limits { sources: vec![0, 1], expiries: 1, ..calm() };
    explore("one target, a second coordinator, a lock that runs out", 1, limits);
}

#[test]
fn promise_6_the_same_source_again_after_a_crash() {
    let limits = Limits { sources: vec![0, 0], crashes: 1, ..calm() };
    explore("one target, two attempts of one source, a lost process", 1, limits);
}

#[test]
fn promise_6_the_same_source_again_while_an_acknowledgement_is_owed() {
    let limits = Limits { sources: vec![0, 0], failures: 1, ..calm() };
    explore("one target, two attempts of one source, a failure", 1, limits);
}

#[test]
fn promise_5_an_instance_that_is_stopped_started_and_deleted() {
    let limits = Limits { lifecycle: 2, expiries: 1, cancels: 1, ..calm() };
    explore("one target, two lifecycle operations, a lock that runs out", 1, limits);
}

#[test]
fn promise_1_one_target_and_effects_that_fail() {
    let limits = Limits { crashes: 1, hosts: true, failures: 1, expiries: 1, cancels: 1, ..calm() };
    explore("one target, a lost node, an effect that fails, a lock that runs out", 1, limits);
}

#[test]
fn full_two_targets_and_effects_that_fail() {
    if full() {
        let limits = Limits { crashes: 1, hosts: true, failures: 1, ..calm() };
        explore("two targets, a lost node, an effect that fails", 2, limits);
    }
}

#[test]
fn full_two_targets_and_two_lost_nodes() {
    if full() {
        let limits = Limits { crashes: 2, hosts: true, expiries: 1, ..calm() };
        explore("two targets, two lost nodes, a lock that runs out", 2, limits);
    }
}

#[test]
fn full_two_targets_and_lifecycle_operations() {
    if full() {
        let limits = Limits { lifecycle: 2, expiries: 1, ..calm() };
        explore("two targets, two lifecycle operations, a lock that runs out", 2, limits);
    }
}

#[test]
fn full_two_targets_a_lost_node_and_a_lock_that_runs_out() {
    if full() {
        let limits = Limits { crashes: 1, hosts: true, expiries: 1, cancels: 1, ..calm() };
        explore("two targets, a lost node, a lock that runs out, somebody cancels", 2, limits);
    }
}

#[test]
fn full_three_targets_and_a_lost_node() {
    if full() {
        explore("three targets, a lost node", 3, Limits { crashes: 1, hosts: true, ..calm() });
    }
}

#[test]
fn full_a_second_coordinator_and_a_lost_node() {
    if full() {
        let limits = Limits { sources: vec![0, 1], crashes: 1, hosts: true, expiries: 1, ..calm() };
        explore("one target, a second coordinator, a lost node, a lock that runs out", 1, limits);
    }
}

#[test]
fn full_one_target_two_lost_nodes_and_effects_that_fail() {
    if full() {
        let limits = Limits { crashes: 2, hosts: true, failures: 1, expiries: 1, cancels: 1, ..calm() };
        explore("one target, two lost nodes, an effect that fails, a lock that runs out, somebody cancels", 1, limits);
    }
}
