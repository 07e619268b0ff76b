//! Every effect of a commit goes wrong once, on the source and on a target: each operation of a node's disk, each call of
//! the state store, each step of the monitor. It fails, or the process or the whole host is lost there. Then all or none
//! of the cluster has the commit, every VM runs, nothing is left over, and the next commit succeeds.
//!
//! The same where the old VM of the target is saved and ended first, and its new one can't be restored: going back is a
//! restore then, of which every effect goes wrong once.
//!
//! A sample is taken: `FORM_SEED=N` takes another, `FORM_EVERY_EFFECT=1` takes all, operation by operation, from the
//! `FORM_FROM=K`th to the `FORM_TO=K`th; `FORM_RUN=N` takes that one. A run has its number for ever, and draws from it and
//! the seed.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use form_node::api::types::CommitAccepted;
use form_node::store::AttemptState;
use form_vmm_hooks::fake::Step;
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::task::{JoinError, JoinHandle};

use crate::client::{Reply, events};
use crate::disk::Fault;
use crate::hooks::{Hold, vm};
use crate::inspect;
use crate::node::Storage;
use crate::scene::Scene;

/// What is tried to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A commit.
    Commit,
    /// One that the target fails to restore, when its old VM has been saved and ended (rule 23).
    WayBack,
}

impl What {
    fn spec(self) -> &'static str {
        match self {
            What::Commit => "",
            What::WayBack => "way_back = \"saved\"\n",
        }
    }

    /// Runs of a sample.
    fn sample(self) -> usize {
        match self {
            What::Commit => 120,
            What::WayBack => 60,
        }
    }

    /// Before an attempt begins.
    fn prepare(self, scene: &Scene) {
        if self == What::WayBack {
            scene.hooks.fail(vm("b", Step::Restore));
        }
    }
}

/// Clusters that are worked on at the same time: most of a run is waiting.
const SCENES: usize = 4;
/// By name, where they are: the source, and a target.
const NAMES: [&str; 2] = ["a", "b"];

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// An operation of the disk of this node.
    Disk(usize, Fault),
    /// As [`Fault::Off`], and only the daemon is lost: what it has written stays.
    Killed(usize),
    /// A call of the store or a step of the monitor fails.
    Step,
    /// The daemon of this node is lost there.
    StepLoses(usize),
}

const WRONGS: [Wrong; 13] = [
    Wrong::Disk(0, Fault::Io),
    Wrong::Disk(0, Fault::Full),
    Wrong::Disk(0, Fault::ReadOnly),
    Wrong::Disk(0, Fault::Off),
    Wrong::Killed(0),
    Wrong::Disk(1, Fault::Io),
    Wrong::Disk(1, Fault::Full),
    Wrong::Disk(1, Fault::ReadOnly),
    Wrong::Disk(1, Fault::Off),
    Wrong::Killed(1),
    Wrong::Step,
    Wrong::StepLoses(0),
    Wrong::StepLoses(1),
];

/// One thing that goes wrong, at the operation or step of that number.
#[derive(Clone, Copy, Debug)]
struct Run {
    number: u64,
    wrong: Wrong,
    at: u64,
}

impl Run {
    /// Whose daemon is lost, and whether its host is.
    fn loses(self) -> Option<(usize, bool)> {
        match self.wrong {
            Wrong::Disk(node, Fault::Off) => Some((node, true)),
            Wrong::Killed(node) | Wrong::StepLoses(node) => Some((node, false)),
            Wrong::Disk(..) | Wrong::Step => None,
        }
    }
}

/// Both have a commit, and have run since; nothing is under way.
async fn pair(what: What) -> Scene {
    let scene = Scene::of(&[&[NAMES[0]], &[NAMES[1]]], Storage::Disk, what.spec()).await;
    (0..64).for_each(|page| scene.poke("a", "memory", 100 + page, page));
    for _ in 0..2 {
        change(&scene, 0);
        scene.commit("a").await.committed();
        at_rest(&scene).await;
    }
    scene
}

/// What the guests do meanwhile. Of the target's disk this page alone.
fn change(scene: &Scene, seed: u64) {
    for page in 20..24 {
        scene.poke("a", "memory", page, seed * 8 + page);
        scene.poke("a", "root", page, seed * 8 + page);
    }
    scene.poke("b", "memory", 50, seed * 8);
    scene.poke("b", "root", inspect::TARGETS_OWN_PAGE, seed * 8 + 1);
}

async fn at_rest(scene: &Scene) {
    for name in NAMES {
        for artifact in ["memory", "root"] {
            scene.standbys(name, artifact).await;
        }
    }
}

/// How many operations each disk does, and how many steps there are, until all is at rest again.
async fn count(scene: &Scene, what: What) -> ([u64; 2], u64) {
    change(scene, 1);
    what.prepare(scene);
    scene.nodes.iter().for_each(|node| node.disk().arm(None));
    scene.hooks.fail_nth(u64::MAX);
    let ended = scene.commit("a").await;
    match what {
        What::Commit => drop(ended.committed()),
        What::WayBack => drop(ended.failed()),
    }
    at_rest(scene).await;
    ([0, 1].map(|node| scene.nodes[node].disk().count()), scene.hooks.count())
}

/// All that can go wrong, kind by kind. A run's number does not depend on the counts, which are not always the same.
fn all((disks, steps): ([u64; 2], u64)) -> Vec<Run> {
    let runs = |(kind, wrong): (u64, Wrong)| {
        let count = match wrong {
            Wrong::Disk(node, _) | Wrong::Killed(node) => disks[node],
            Wrong::Step | Wrong::StepLoses(_) => steps,
        };
        (1..=count).map(move |at| Run { number: at * WRONGS.len() as u64 + kind, wrong, at })
    };
    (0..).zip(WRONGS).flat_map(runs).collect()
}

/// Lets one thing go wrong in a commit, and sees that all is well afterwards. What it was, if it has happened.
async fn carry_out(scene: &mut Scene, what: What, run: Run, seed: u64) -> Option<String> {
    change(scene, seed);
    what.prepare(scene);
    let (live, since) = (scene.live("b", "memory"), scene.vmm.calls().len());
    let memory = std::fs::read(&live).expect("read");
    let head = scene.head().await;
    let hold = match run.wrong {
        Wrong::Disk(node, fault) => arm(scene, node, run.at, fault),
        Wrong::Killed(node) => arm(scene, node, run.at, Fault::Off),
        Wrong::Step => {
            scene.hooks.fail_nth(run.at);
            None
        }
        Wrong::StepLoses(_) => Some(scene.hooks.hold_nth(run.at)),
    };
    let begun = begin(scene, run).await;
    let attempt = begun.as_ref().ok().and_then(Option::as_deref);
    let over = async {
        ended(scene, attempt).await;
        // Going back is not at its end when the attempt is aborted.
        scene.each_is_one_vm().await;
        at_rest(scene).await;
    };
    tokio::select! {
        () = scene.wait_for("it goes wrong, or all is done", async || hit(scene, run).is_some()) => {}
        () = over => {}
    }
    let hit = hit(scene, run);
    if hit.is_none() {
        // What we ask ourselves from now on is no step of the commit.
        scene.hooks.disarm();
        scene.nodes.iter().for_each(|node| node.disk().arm(None));
    }
    if hit.is_some() && run.loses().is_some() {
        lose(scene, run, seed).await;
    } else if let Wrong::Disk(node, Fault::Full | Fault::ReadOnly) = run.wrong {
        // Whoever is in charge of a disk that is full or broken sees to it some time.
        let _ = tokio::time::timeout(Duration::from_millis(1_500), ended(scene, attempt)).await;
        scene.nodes[node].disk().mend();
    }
    if let Some(hold) = hold {
        hold.release();
    }
    let attempt = match begun {
        Ok(attempt) => attempt,
        Err(asked) => {
            let answer = tokio::time::timeout(Duration::from_secs(60), asked).await;
            match attempt_of(answer.expect("an answer, or none any more")) {
                None => scene.attempt_under_way().await,
                attempt => attempt,
            }
        }
    };
    let went_back = !and_then(scene, attempt, &head).await;
    let booted = scene.vmm.calls().into_iter().skip(since).any(|call| call == ("b".into(), Step::Boot));
    let host_is_lost = matches!(run.wrong, Wrong::Disk(1, Fault::Off));
    assert!(host_is_lost || !booted, "it has lost its memory");
    if went_back && !booted {
        assert!(std::fs::read(&live).expect("read") == memory, "its memory is what it was");
    }
    all_is_well(scene).await;
    hit
}

fn arm(scene: &Scene, node: usize, at: u64, fault: Fault) -> Option<Hold> {
    scene.nodes[node].disk().arm(Some((at, fault)));
    None
}

/// The operation or step that went wrong, once it has.
fn hit(scene: &Scene, run: Run) -> Option<String> {
    match run.wrong {
        Wrong::Disk(node, _) | Wrong::Killed(node) => scene.nodes[node].disk().was_hit(),
        Wrong::Step | Wrong::StepLoses(_) => scene.hooks.hit(),
    }
}

/// A request to commit that has no answer yet.
type Asked = JoinHandle<io::Result<Reply>>;

/// A commit from a begins, unless that goes wrong. What waits in the middle of that waits for us.
async fn begin(scene: &Scene, run: Run) -> Result<Option<String>, Asked> {
    let (request, api) = (scene.commit_request("a", json!({"timeout_s": 20})), scene.api("a"));
    let mut asked = tokio::spawn(async move { request.ask(api).await });
    tokio::select! {
        answer = &mut asked => Ok(attempt_of(answer)),
        () = scene.wait_for("it goes wrong, or there is an answer", async || {
            run.loses().is_some() && hit(scene, run).is_some()
        }) => Err(asked),
    }
}

/// The attempt that was accepted. No answer comes from a daemon that is lost.
fn attempt_of(answer: Result<io::Result<Reply>, JoinError>) -> Option<String> {
    let (status, json) = answer.expect("no panic").ok()?;
    let accepted = status.is_success().then(|| serde_json::from_value::<CommitAccepted>(json).expect("accepted"));
    accepted.map(|accepted| accepted.attempt_id)
}

/// Waits for the end of an attempt, as the store has it; not for those who have not heard of it.
async fn ended(scene: &Scene, attempt: Option<&str>) {
    let Some(attempt) = attempt else { return };
    scene
        .wait_for("the attempt is decided", async || match scene.attempt(attempt).await {
            record if record.state == AttemptState::Committed => record.is_settled(),
            record => record.state == AttemptState::Aborted,
        })
        .await;
}

/// The daemon of a node is lost, or its whole host, and comes back.
async fn lose(scene: &mut Scene, run: Run, seed: u64) {
    let (number, host) = run.loses().expect("it is");
    scene.nodes[number].kill();
    if host {
        scene.vmm.crash(NAMES[number]);
        scene.nodes[number].crash(seed);
        inspect::records_are_true(&scene.nodes[number].data);
    }
    scene.nodes[number].start().await;
}

/// Whatever has gone wrong: all or none. True: all.
async fn and_then(scene: &Scene, attempt: Option<String>, head: &str) -> bool {
    match &attempt {
        Some(attempt) => {
            let ending = tokio::time::timeout(Duration::from_secs(60), events(scene.api("a"), attempt)).await;
            ending.expect("the attempt ends");
        }
        // It may have begun all the same, and nobody knows: its lock runs out.
        None => drop(scene.expire_lock_if_any().await),
    }
    let booted = scene.run_again(&NAMES).await;
    scene.in_order().await;
    let record = match &attempt {
        Some(attempt) => Some(scene.attempt(attempt).await),
        None => None,
    };
    let committed = record.filter(|record| record.state == AttemptState::Committed);
    match &committed {
        Some(record) => {
            assert_eq!(record.commit_id.as_deref(), Some(scene.head().await.as_str()));
            match booted.contains(&"b") {
                // It had become the commit, and was lost with its host later.
                true => inspect::disk_is_what_it_was(scene, "b").await,
                false => scene.all_run_the_head(&["b"]).await,
            }
        }
        None => {
            assert_eq!(scene.head().await, head, "nothing was committed");
            for name in NAMES {
                assert_eq!(scene.instance(name).await.current_commit.as_deref(), Some(head), "{name}");
            }
            inspect::disk_is_what_it_was(scene, "b").await;
        }
    }
    scene.nodes.iter().for_each(|node| inspect::bases_are_whole(&node.data));
    committed.is_some()
}

/// The next commit succeeds, and nothing is left over.
async fn all_is_well(scene: &Scene) {
    scene.hooks.clear();
    let accepted = scene.until_accepted("a", serde_json::Value::Null).await;
    scene.end_of("a", crate::scene::text(&accepted, "attempt_id")).await.committed();
    scene.all_run_the_head(&NAMES).await;
    at_rest(scene).await;
    inspect::nothing_is_left_over(scene).await;
    for name in NAMES {
        for artifact in ["memory", "root"] {
            let base = scene.base(name, artifact).await;
            let standbys = scene.standbys(name, artifact).await;
            assert!(standbys.iter().all(|standby| crate::scene::same(standby, &base)), "standbys of {name}");
        }
    }
}

/// What became of all runs.
#[derive(Default)]
struct Done {
    runs: usize,
    met: usize,
    failed: Vec<String>,
}

/// One thread's share of the work.
async fn work(todo: &Mutex<VecDeque<Run>>, what: What, seed: u64) -> Done {
    let (mut scene, mut done) = (None, Done::default());
    loop {
        let Some(run) = todo.lock().expect("lock").pop_front() else { return done };
        let mut ours = match scene.take() {
            Some(scene) => scene,
            None => pair(what).await,
        };
        let began = Instant::now();
        let seed = seed.wrapping_mul(1 << 20).wrapping_add(run.number);
        let carried_out = AssertUnwindSafe(carry_out(&mut ours, what, run, seed)).catch_unwind().await;
        let name = format!("run {} ({:?} at {}, seed {seed})", run.number, run.wrong, run.at);
        done.runs += 1;
        match carried_out {
            Ok(hit) => {
                println!("{name}: {} ({} ms)", hit.as_deref().unwrap_or("not met"), began.elapsed().as_millis());
                done.met += usize::from(hit.is_some());
                scene = Some(ours);
            }
            // The reason has been printed.
            Err(_) => {
                println!("{name}: FAILED, at {:?}", hit(&ours, run));
                done.failed.push(name);
            }
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn promise_1_and_10_every_effect_fails() {
    every_effect_fails(What::Commit);
}

#[test]
fn rule_23_every_effect_of_the_way_back_fails() {
    every_effect_fails(What::WayBack);
}

fn every_effect_fails(what: What) {
    let seed = number("FORM_SEED").unwrap_or(4);
    let counts = block_on(async { count(&pair(what).await, what).await });
    let wanted = number("FORM_FROM").unwrap_or(1)..=number("FORM_TO").unwrap_or(u64::MAX);
    let all = all(counts);
    let total = all.len();
    let mut runs: Vec<_> = match (std::env::var_os("FORM_EVERY_EFFECT"), number("FORM_RUN")) {
        (_, Some(number)) => all.into_iter().filter(|run| run.number == number).collect(),
        (Some(_), None) => all.into_iter().filter(|run| wanted.contains(&run.at)).collect(),
        // Neighbours are much alike: a sample takes every so-many-th.
        (None, None) => {
            let step = total.div_ceil(what.sample());
            all.into_iter().skip(usize::try_from(seed % step as u64).expect("small")).step_by(step).collect()
        }
    };
    let ([source, target], steps) = counts;
    println!("{source} disk operations of the source, {target} of the target, {steps} store calls and monitor steps");
    runs.sort_by_key(|run| run.number);
    let todo = Mutex::new(VecDeque::from(runs));
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SCENES).map(|_| scope.spawn(|| block_on(work(&todo, what, seed)))).collect();
        threads.into_iter().fold(Done::default(), |mut all, thread| {
            let Done { runs, met, failed } = thread.join().expect("it panics in runs alone");
            all.runs += runs;
            all.met += met;
            all.failed.extend(failed);
            all
        })
    });
    println!("every effect ({what:?}): {} of {total} runs, {} faults met, seed {seed}", done.runs, done.met);
    assert!(done.failed.is_empty(), "{} runs failed: {:#?}", done.failed.len(), done.failed);
    assert!(done.met * 10 >= done.runs * 9, "a commit does much less than when it was counted");
}
