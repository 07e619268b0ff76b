//! A short `make chaos`: a run of each kind of fault, from seeds that stay the same, and what it prints.

use std::process::{Command, Stdio};

/// One for each kind of fault.
const RUNS: u64 = 12;
/// What happens at which moment still depends on the host: a seed says what is tried, not what is hit.
const SEED: u64 = 24;

#[test]
fn promise_1_all_or_none_whatever_breaks() {
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_form-chaos"));
    chaos.env("N", RUNS.to_string()).env("SEED", SEED.to_string()).env("GUESTS", "0").stdin(Stdio::null());
    let output = chaos.output().expect("it can be run");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    let all = said.lines().find(|line| line.starts_with("| all |")).expect("a table");
    let counts: Vec<u64> = all.split('|').skip(2).map_while(|cell| cell.trim().parse().ok()).collect();
    let [runs, committed, undone, violations] = counts[..] else { panic!("not four counts: {all}") };
    assert_eq!((runs, committed + undone, violations), (RUNS, RUNS, 0), "{said}");
    for seed in SEED..SEED + RUNS {
        assert!(said.contains(&format!("seed: {seed},")), "a seed is not named: {said}");
    }
}
