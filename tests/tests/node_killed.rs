//! A node is killed, with all of its process group, at each step of a commit: the guests of its host run on, and what was
//! half done is undone (promises 1 and 2).

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use form_node::api::types::AttemptEvent;
use form_tests::{Assets, Cluster, Context, FaultyQemu, Form, Guest, Marks, NodeOptions, Result, Scene};

const COUNTER_START: u64 = 77_000_000;
const COUNTER_MOST: u64 = 10_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// A guest, and what makes it itself.
struct Known {
    guest: Guest,
    boot_id: String,
    marks: Marks,
}

impl Known {
    fn of(mut guest: Guest, number: u64) -> Result<Self> {
        let marks = Marks::make(&mut guest, &format!("I am guest {number}"), COUNTER_START * number)?;
        Ok(Self { boot_id: guest.boot_id()?, marks, guest })
    }

    /// It is what it was, and goes on.
    fn runs_on(&mut self, when: &str) -> Result<()> {
        self.guest.attach()?;
        assert_eq!(self.guest.boot_id()?, self.boot_id, "{}, {when}", self.guest.name());
        Marks::read(&mut self.guest)?.continue_from(&self.marks, COUNTER_MOST)?;
        Marks::counts_on(&mut self.guest)
    }
}

/// Begins a commit and waits until its phase is that.
fn commit_until(form: &Form, phase: &str) -> Result<Child> {
    let words = ["manage", "commit", "--name", "demo-1", "--description", phase, "--json"];
    let mut commit =
        form.command(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context(|| "begin a commit".into())?;
    let lines = BufReader::new(commit.stdout.take().expect("a pipe")).lines();
    let mut events = lines.map_while(|line| line.ok()).filter_map(|line| serde_json::from_str(&line).ok());
    let begun = events.any(|event| matches!(event, AttemptEvent::Phase { phase: now, .. } if now == phase));
    assert!(begun, "a commit has a phase {phase}");
    Ok(commit)
}

/// Nobody has to wait until it gives up asking a node that was killed.
fn end(commit: &mut Child) -> Result<()> {
    let _ = commit.kill(); // gone already is fine
    commit.wait().map(drop).context(|| "wait for the commit".into())
}

fn staging_is_empty(cluster: &Cluster) {
    let until = Instant::now() + PATIENCE;
    for number in 1..=2 {
        let staging = cluster.node_ref(number).data().join("staging");
        while std::fs::read_dir(&staging).is_ok_and(|mut entries| entries.next().is_some()) {
            assert!(Instant::now() < until, "node {number} has something left in staging");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn promise_2_guests_run_on_when_their_node_is_killed_at_any_step() -> Result<()> {
    let assets = Assets::find()?;
    let scene = Scene::new()?;
    let qemu = FaultyQemu::new(&scene, "q2")?;
    let mut plan = (0..2).map(|_| NodeOptions::local()).collect::<Result<Vec<_>>>()?;
    plan[1].qemu = Some(qemu.program());
    let (mnemonic, _) = Form::new(assets.form.clone(), None).new_account()?;
    let mut cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    let guests = cluster.boot_all("demo", 2)?;
    let mut known = Vec::new();
    for (guest, number) in guests.into_iter().zip(1..) {
        known.push(Known::of(guest, number)?);
    }
    let form = cluster.form(1);
    let origin = form.instance("demo-1")?.snapshot_id;
    let nothing_changed = |cluster: &Cluster, known: &mut Vec<Known>, when: &str| -> Result<()> {
        staging_is_empty(cluster);
        let until = Instant::now() + PATIENCE;
        while cluster.form(2).instances()?.iter().any(|instance| instance.attempt_id.is_some()) {
            assert!(Instant::now() < until, "an attempt does not end, {when}");
            std::thread::sleep(Duration::from_millis(100));
        }
        for guest in known {
            guest.runs_on(when)?;
            assert_eq!(cluster.form(2).instance(guest.guest.name())?.snapshot_id, origin, "{when}");
        }
        Ok(())
    };

    cluster.node(1).kill()?;
    cluster.node(1).start()?;
    nothing_changed(&cluster, &mut known, "idle")?;

    for phase in ["warm", "pause", "diff"] {
        let mut commit = commit_until(&form, phase)?;
        cluster.node(1).kill()?;
        end(&mut commit)?;
        cluster.node(1).start()?;
        nothing_changed(&cluster, &mut known, phase)?;
    }

    // The target's node, and then the coordinator, while the old VM is paused and the new one is being restored.
    for killed in [2, 1] {
        qemu.hold_restore()?;
        let words = ["manage", "commit", "--name", "demo-1", "--description", "held", "--json"];
        let mut commit = form
            .command(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(|| "begin a commit".into())?;
        qemu.wait_until_held()?;
        cluster.node(killed).kill()?;
        qemu.behave()?;
        cluster.node(killed).start()?;
        end(&mut commit)?;
        nothing_changed(&cluster, &mut known, "activating")?;
    }

    let before = Marks::read(&mut known[0].guest)?;
    let summary = form.commit("demo-1", "undisturbed")?;
    assert_eq!(summary.parent, origin);
    let boot_id = known[0].boot_id.clone();
    for Known { guest, .. } in &mut known {
        guest.attach()?;
        Marks::read(guest)?.continue_from(&before, COUNTER_MOST)?;
        assert_eq!(guest.boot_id()?, boot_id, "{}", guest.name());
    }
    drop(known);
    cluster.shut_down()
}
