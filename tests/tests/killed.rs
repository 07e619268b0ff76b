//! A daemon is killed (SIGKILL) as a commit of real guests comes to a step, and started again: all or none of them become
//! the commit, every guest runs on, nothing is left, and the next commit succeeds (promises 1, 2 and 10).
//!
//! The step is read from the commit's own events, so that nothing in the program knows of this test. Some pairs of step and
//! victim are tried; `FORM_EVERY_EFFECT=1` tries all, `FORM_STEP=NAME` both of that step.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use form_node::api::types::AttemptEvent;
use form_tests::{Assets, Cluster, Guest, Marks, NodeOptions, Result, Scene};

const NAMES: [&str; 2] = ["k-1", "k-2"];
const STEPS: [&str; 10] =
    ["preflight", "warm", "pause", "diff", "encode", "stage", "confirm", "activate", "commit", "finalize"];
/// Step, and number of the node that is killed; the first is the source's.
const SAMPLE: [(&str, usize); 4] = [("pause", 1), ("stage", 2), ("activate", 1), ("commit", 2)];
const COUNTER_START: u64 = 55_000_000;
const COUNTER_MOST: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Commits from the first; the node is killed when the commit says that it is at that step. False: it never said so.
fn commit_and_kill(cluster: &mut Cluster, step: &str, victim: usize) -> bool {
    let arguments = ["manage", "commit", "--name", NAMES[0], "--description", step, "--json"];
    let mut command = cluster.form(1).command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut commit = command.spawn().expect("form runs");
    let lines = BufReader::new(commit.stdout.take().expect("piped")).lines();
    let mut killed = false;
    // Read to the end, so that it can end.
    for line in lines.map_while(std::result::Result::ok) {
        let event = serde_json::from_str::<AttemptEvent>(&line);
        let there = matches!(&event, Ok(AttemptEvent::Phase { target: None, phase, .. }) if phase == step);
        if there && !killed {
            cluster.node(victim).kill().expect("it is killed");
            killed = true;
        }
    }
    commit.wait().expect("it ends");
    killed
}

/// Directories of VMs of all instances on a node, and attempts in its staging.
fn built(cluster: &Cluster, number: usize) -> (usize, usize) {
    let data = cluster.node_ref(number).data();
    let names = |dir: &std::path::Path| -> Vec<_> {
        std::fs::read_dir(dir).map_or_else(|_| Vec::new(), |entries| entries.flatten().map(|e| e.path()).collect())
    };
    let vms = names(&data.join("instances")).iter().map(|instance| names(instance).len()).sum();
    (vms, names(&data.join("staging")).len())
}

/// What each runs: its commit, and which boot of a kernel it is.
fn runs(cluster: &Cluster, guests: &mut [Guest]) -> Result<Vec<(Option<String>, String)>> {
    let mut found = Vec::new();
    for guest in guests {
        guest.attach()?;
        Marks::counts_on(guest)?;
        found.push((cluster.form(1).instance(guest.name())?.snapshot_id, guest.boot_id()?));
    }
    Ok(found)
}

#[test]
fn promise_1_a_daemon_that_is_killed_at_a_step() -> Result<()> {
    let assets = Assets::find()?;
    let scene = Scene::new()?;
    let plan = (0..NAMES.len()).map(|_| NodeOptions::local()).collect::<Result<_>>()?;
    let (mnemonic, _) = form_tests::Form::new(assets.form.clone(), None).new_account()?;
    let mut cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    let mut guests = cluster.boot_all("k", NAMES.len())?;
    for (number, guest) in guests.iter_mut().enumerate() {
        Marks::make(guest, guest.name().to_owned().as_str(), COUNTER_START * (number as u64 + 1))?;
    }
    let both = |step: &'static str| [(step, 1), (step, 2)];
    let pairs: Vec<_> = match (std::env::var("FORM_STEP"), std::env::var_os("FORM_EVERY_EFFECT")) {
        (Ok(step), _) => both(STEPS.into_iter().find(|known| *known == step).expect("a step")).to_vec(),
        (Err(_), Some(_)) => STEPS.into_iter().flat_map(both).collect(),
        (Err(_), None) => SAMPLE.to_vec(),
    };
    for (step, victim) in pairs {
        let before = runs(&cluster, &mut guests)?;
        guests[0].run(&format!("echo {step} {victim} > /tmp/mark"))?;
        let marks = Marks::read(&mut guests[0])?;
        assert!(commit_and_kill(&mut cluster, step, victim), "{step} was never reached");
        cluster.node(victim).start()?;
        wait_for(&format!("after {step}, node {victim} killed: nothing is left of the attempt"), || {
            let free = |name: &&str| cluster.form(1).instance(name).is_ok_and(|instance| instance.attempt_id.is_none());
            NAMES.iter().all(free) && [1, 2].iter().all(|number| built(&cluster, *number) == (1, 0))
        });
        let after = runs(&cluster, &mut guests)?;
        let committed = after[1].0 != before[1].0;
        println!("{step}: node {victim} killed: committed {committed}");
        match committed {
            true => {
                assert_eq!(after[0], (after[1].0.clone(), before[0].1.clone()), "the source runs on");
                assert_eq!(after[1].1, before[0].1, "the target is what the source was");
                Marks::read(&mut guests[1])?.continue_from(&marks, COUNTER_MOST)?;
            }
            false => assert_eq!(after, before, "none of them has changed"),
        }
        Marks::read(&mut guests[0])?.continue_from(&marks, COUNTER_MOST)?;
        cluster.form(1).commit(NAMES[0], "the next one")?;
    }
    drop(guests);
    cluster.shut_down()
}
