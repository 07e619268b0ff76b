//! Runs at random: a seed chooses the scenario and then, with a virtual clock, one action after another. What the model
//! leaves out to stay small is here: many faults in one run, writes and questions that take their time, real deadlines.
//!
//! * `FORM_SIM_SEEDS=100000 FORM_SIM_FIRST=2000`: how many seeds, and from which on.
//! * A seed that fails is named, with the file of its events. `FORM_SIM_REPLAY=FILE` runs those again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use form_proto::Millis;

use crate::world::{Action, Limits, State, World};

const SEEDS: u64 = 2_000;
const STEPS_MAX: usize = 20_000;

/// xorshift64*: the run is a function of the seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..8).for_each(|_| _ = dice.roll(2));
        dice
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % sides
    }

    fn up_to(&mut self, most: u8) -> u8 {
        u8::try_from(self.roll(u64::from(most) + 1)).expect("small")
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).expect("small")]
    }
}

struct Run {
    dice: Dice,
    world: World,
    /// The seed, then a line for each action: `time action`.
    events: String,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let targets = dice.pick(&[1, 2, 2, 3]);
        let others: Vec<_> = (0..dice.pick(&[0, 0, 1, 2])).map(|_| dice.pick(&[0, 1])).collect();
        let calm = dice.roll(4) == 0;
        let mut fault = |most| if calm { 0 } else { dice.up_to(most) };
        let limits = Limits {
            sources: [0].into_iter().chain(others).collect(),
            crashes: fault(4),
            hosts: true,
            lifecycle: fault(2),
            failures: fault(3),
            expiries: fault(1),
            cancels: fault(1),
        };
        Self { dice, world: World::simulated(targets, limits), events: format!("seed {seed}\n") }
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        let _ = writeln!(self.events, "{} {action:?}", self.world.now.0);
        self.world.apply(action);
        self.world.broken.map_or(Ok(()), |rule| Err(rule.to_owned()))
    }

    fn go(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let mut found = Vec::new();
            self.world.actions(&mut found);
            let (faults, mut ordinary): (Vec<_>, Vec<_>) = found.into_iter().partition(|action| is_fault(*action));
            if ordinary.is_empty() && self.world.is_settled() {
                return self.world.is_right().map_err(str::to_owned);
            }
            if !faults.is_empty() && (ordinary.is_empty() || self.dice.roll(24) == 0) {
                ordinary = faults;
            }
            if ordinary.is_empty() {
                let deadline = self.world.deadline().ok_or("nothing can happen any more")?;
                self.world.later(deadline);
                continue;
            }
            let action = self.dice.pick(&ordinary);
            let lost = matches!(action, Action::Deliver { .. }) && self.dice.roll(8) == 0;
            if !lost {
                self.act(action)?;
            }
            if let Action::Deliver { attempt, instance, kind } = action
                && (lost || self.dice.roll(8) != 0)
                && self.world.attempts[attempt].wire.holds(instance, kind)
            {
                self.act(Action::Lose { attempt, instance, kind })?;
            }
            if self.dice.roll(64) == 0 {
                self.world.healed()?;
            }
            self.world.later(self.world.now.after(self.dice.roll(60)));
        }
        Err("it does not come to an end".to_owned())
    }
}

/// What hinders: now and then, and as often as the limits allow.
fn is_fault(action: Action) -> bool {
    match action {
        Action::Lease { answered, .. }
        | Action::Reply { answered, .. }
        | Action::Outcome { answered, .. }
        | Action::Acknowledge { answered, .. }
        | Action::Read { answered, .. } => !answered,
        Action::Fail { .. }
        | Action::Crash { .. }
        | Action::Cancel { .. }
        | Action::Expire
        | Action::Stop { .. }
        | Action::Start { .. }
        | Action::Delete { .. }
        | Action::Transact { transaction: crate::world::Transaction::Commit, .. } => true,
        _ => false,
    }
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

#[test]
fn promise_1_every_run_ends_all_or_none() {
    let (first, seeds) = (number("FORM_SIM_FIRST", 0), number("FORM_SIM_SEEDS", SEEDS));
    let (mut ends, mut steps) = (BTreeMap::new(), 0);
    for seed in first..first + seeds {
        let mut run = Run::new(seed);
        let ended = catch_unwind(AssertUnwindSafe(|| run.go())).unwrap_or_else(|_| Err("it panicked".into()));
        if let Err(why) = ended {
            let file = std::env::temp_dir().join(format!("form-sim-{seed}.events"));
            std::fs::write(&file, &run.events).expect("the temporary directory takes a file");
            panic!("seed {seed}: {why}\nits events: {0}\nagain: FORM_SIM_REPLAY={0}", file.display());
        }
        steps += run.events.lines().count();
        for attempt in 0..run.world.attempts.len() {
            *ends.entry(format!("{:?}", run.world.store.state(attempt))).or_insert(0u64) += 1;
        }
    }
    println!("simulation: seeds {first} to {}: {steps} actions, attempts {ends:?}", first + seeds);
    // Both ends must have been reached, or the simulation proves nothing.
    let often = |state| ends.get(&format!("{:?}", Some(state))).is_some_and(|&n| n >= seeds / 5);
    assert!(seeds < 100 || (often(State::Committed) && often(State::Aborted)), "{ends:?}");
}

/// Runs the events of a file again. The rule that breaks, if one does.
fn replayed(events: &str) -> Result<World, String> {
    let mut lines = events.lines();
    let seed = lines.next().and_then(|line| line.strip_prefix("seed ")?.parse().ok()).ok_or("no seed")?;
    let mut run = Run::new(seed);
    for line in lines {
        let (now, action) = line.split_once(' ').ok_or("no event")?;
        run.world.later(Millis(now.parse().map_err(|_| "no time")?));
        let mut found = Vec::new();
        run.world.actions(&mut found);
        for action in found.clone() {
            if let Action::Deliver { attempt, instance, kind } = action {
                found.push(Action::Lose { attempt, instance, kind });
            }
        }
        let action = found.into_iter().find(|found| format!("{found:?}") == action);
        run.act(action.ok_or_else(|| format!("this can't happen here: {line}"))?)?;
    }
    Ok(run.world)
}

#[test]
fn a_file_of_events_replays() {
    let Some(file) = std::env::var_os("FORM_SIM_REPLAY").map(PathBuf::from) else { return };
    let events = std::fs::read_to_string(&file).expect("the file of FORM_SIM_REPLAY");
    let world = replayed(&events).unwrap_or_else(|rule| panic!("{}: {rule}", file.display()));
    if let Err(why) = world.healed() {
        panic!("{}: {why}", file.display());
    }
}

/// The same events again: the same world, and each machine gives the same answers.
#[test]
fn a_recorded_run_replays() {
    for seed in [3, 4, 5, 6] {
        let mut run = Run::new(seed);
        run.go().expect("no rule is broken");
        let again = replayed(&run.events).expect("what happened can happen again");
        assert_eq!(again.traces, run.world.traces);
        for (name, trace) in again.traces.iter().flatten() {
            let inputs = form_proto::replay(trace).unwrap_or_else(|error| panic!("seed {seed}, {name}: {error}"));
            assert!(inputs > 0, "{name} was told nothing");
        }
    }
}

#[test]
fn a_quiet_commit_takes_six_messages_a_participant() {
    for targets in [1, 2, 3] {
        let limits =
            Limits { sources: vec![0], crashes: 0, hosts: false, lifecycle: 0, failures: 0, expiries: 0, cancels: 0 };
        let mut world = World::simulated(targets, limits);
        while !world.is_settled() {
            let mut found = Vec::new();
            world.actions(&mut found);
            let action = found.into_iter().find(|action| !is_fault(*action)).expect("it goes on");
            world.apply(action);
            if let Action::Deliver { attempt, instance, kind } = action {
                world.apply(Action::Lose { attempt, instance, kind });
            }
        }
        assert_eq!((world.store.state(0), world.is_right()), (Some(State::Committed), Ok(())));
        assert_eq!(world.sent, 6 * (targets as u64 + 1));
    }
}
