//! Nodes with cables between them that are cut, lossy or slow, at each phase of a commit; and a coordinator that never
//! comes back. Promise 1 for a network that is not there.

use std::time::{Duration, Instant};

use form_tests::{Assets, Cluster, Commit, Disks, Ended, Error, Form, Network, Result, Scene, Trouble, at_rest};

const NODES: usize = 3;
/// For whatever has to come some time.
const BOUND: Duration = Duration::from_secs(90);
const SOURCE: usize = 1;

struct Stage {
    disks: Disks,
    cluster: Cluster,
    network: Network,
    /// Each change of a disk is another one.
    changes: u64,
}

impl Stage {
    fn new() -> Result<Self> {
        let (assets, scene) = (Assets::without_guest()?, Scene::new()?);
        let network = Network::new(&scene, NODES)?;
        let plan = (0..NODES).map(|number| network.node(number)).collect::<Result<_>>()?;
        let (mnemonic, _) = Form::new(assets.form.clone(), None).new_account()?;
        let cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
        Ok(Self { disks: Disks::create(&cluster)?, cluster, network, changes: 0 })
    }

    /// Every disk becomes another; what they are then.
    fn change(&mut self) -> Result<Vec<Vec<u8>>> {
        for number in 1..=NODES {
            self.changes += 1;
            self.disks.change(&self.cluster, number, self.changes)?;
        }
        self.read()
    }

    fn read(&self) -> Result<Vec<Vec<u8>>> {
        (1..=NODES).map(|number| self.disks.read(&self.cluster, number)).collect()
    }

    fn begin(&self, source: usize, more: &[&str]) -> Result<Commit> {
        Commit::begin(&self.cluster.form(source), &Disks::name(source), "network", more)
    }

    fn head(&self) -> Result<Option<String>> {
        Ok(self.cluster.form(1).instance(&Disks::name(1))?.snapshot_id)
    }

    /// Everything is whole again: all have become the source, or nobody has changed. Which of the two.
    fn settle(&self, before: &[Vec<u8>], head: Option<String>, end: &Ended) -> Result<bool> {
        at_rest(&self.cluster, 0, BOUND)?;
        let now = self.read()?;
        let committed = self.head()? != head;
        for (number, disk) in now.iter().enumerate() {
            self.disks.runs(&self.cluster, number + 1)?;
            let from = if committed { SOURCE - 1 } else { number };
            assert!(*disk == before[from], "committed: {committed}; d-{} is not d-{}: {end:?}", number + 1, from + 1);
        }
        if end.said_committed() || end.exit_code == Some(0) {
            assert!(committed, "{end:?}");
        }
        Ok(committed)
    }

    /// A commit in which nothing is broken: the source's.
    fn commit(&mut self) -> Result<()> {
        let (before, head) = (self.change()?, self.head()?);
        let end = self.begin(SOURCE, &[])?.end(BOUND)?;
        assert_eq!(end.exit_code, Some(0), "{end:?}");
        assert!(self.settle(&before, head, &end)?, "{end:?}");
        Ok(())
    }
}

/// The cable of `victim` is cut when the commit comes to `word`, until the commit has ended, or in any case for as long
/// as it takes to be sure that it can't end. Whether it was committed.
fn cut_at(stage: &mut Stage, victim: usize, word: &str) -> Result<bool> {
    let (before, head) = (stage.change()?, stage.head()?);
    let mut commit = stage.begin(SOURCE, &[])?;
    assert!(commit.wait_for(word, BOUND), "it never came to {word}");
    stage.network.trouble(victim - 1, Trouble::Cut)?;
    // Longer than a connection lives on which nothing arrives.
    std::thread::sleep(Duration::from_secs(6));
    stage.network.heal()?;
    let end = commit.end(BOUND)?;
    let committed = stage.settle(&before, head, &end)?;
    stage.commit()?;
    Ok(committed)
}

#[test]
fn promise_1_a_target_is_cut_off_at_each_phase() -> Result<()> {
    let mut stage = Stage::new()?;
    for word in ["accepted", "stage", "activate", "committed"] {
        let committed = cut_at(&mut stage, 2, word)?;
        assert!(committed || word != "committed", "what was committed stays so");
    }
    stage.cluster.shut_down()
}

#[test]
fn promise_1_the_coordinator_is_cut_off_at_each_phase() -> Result<()> {
    let mut stage = Stage::new()?;
    for word in ["preflight", "ready", "active", "committed"] {
        let committed = cut_at(&mut stage, SOURCE, word)?;
        assert!(committed || word != "committed", "what was committed stays so");
    }
    stage.cluster.shut_down()
}

#[test]
fn a_lossy_or_slow_cable_is_no_reason_to_fail() -> Result<()> {
    let mut stage = Stage::new()?;
    for (trouble, victim) in [(Trouble::Loss(5), 2), (Trouble::Loss(5), SOURCE), (Trouble::Slow(1_000), 3)] {
        stage.network.trouble(victim - 1, trouble)?;
        stage.commit()?;
        stage.network.heal()?;
    }
    // So much that a commit may well fail: then nobody has moved.
    stage.network.trouble(SOURCE - 1, Trouble::Loss(60))?;
    let (before, head) = (stage.change()?, stage.head()?);
    let commit = stage.begin(SOURCE, &[])?;
    std::thread::sleep(Duration::from_secs(4));
    stage.network.heal()?;
    let end = commit.end(BOUND)?;
    stage.settle(&before, head, &end)?;
    stage.commit()?;
    stage.cluster.shut_down()
}

/// Killed, and its cable cut, when both targets are built, or when one is active: once the lock has run out they abort it by
/// themselves, are what they were, and go on without it. What is left of it on its own node is undone when that is back.
#[test]
fn promise_1_a_coordinator_that_never_comes_back() -> Result<()> {
    let mut stage = Stage::new()?;
    for word in ["confirm", "active"] {
        let (before, head) = (stage.change()?, stage.head()?);
        let mut commit = stage.begin(SOURCE, &[])?;
        assert!(commit.wait_for(word, BOUND), "it never came to {word}");
        stage.cluster.node(SOURCE).kill();
        stage.network.trouble(SOURCE - 1, Trouble::Cut)?;
        commit.kill();

        let form = stage.cluster.form(2);
        let until = Instant::now() + BOUND;
        let settled = || {
            (2..=NODES).try_for_each(|number| {
                stage.disks.runs(&stage.cluster, number)?;
                let staging = stage.cluster.node_ref(number).data().join("staging");
                match std::fs::read_dir(staging).into_iter().flatten().count() {
                    0 => Ok(()),
                    _ => Err(Error::new(format!("something is staged on node {number}"))),
                }
            })
        };
        while let Err(error) = settled() {
            assert!(Instant::now() < until, "{word}: {error:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let committed = form.instance(&Disks::name(2))?.snapshot_id != head;
        let after: Vec<_> =
            (2..=NODES).map(|number| stage.disks.read(&stage.cluster, number)).collect::<Result<_>>()?;
        for (number, disk) in (2..=NODES).zip(&after) {
            let from = if committed { SOURCE } else { number };
            assert!(*disk == before[from - 1], "committed: {committed}; d-{number} is not d-{from}, at {word}");
        }

        // They go on without it.
        let end = stage.begin(2, &["--targets", "d-3"])?.end(BOUND)?;
        assert_eq!(end.exit_code, Some(0), "{end:?}");
        assert!(stage.disks.read(&stage.cluster, 3)? == after[0]);

        stage.network.heal()?;
        stage.cluster.node(SOURCE).start()?;
        // What is left of the attempt there is undone; then a commit brings it along.
        while form.instances()?.iter().any(|instance| instance.attempt_id.is_some()) {
            assert!(Instant::now() < until, "{word}: {:?}", form.instances()?);
            std::thread::sleep(Duration::from_millis(100));
        }
        let end = stage.begin(2, &[])?.end(BOUND)?;
        assert_eq!(end.exit_code, Some(0), "{end:?}");
        at_rest(&stage.cluster, 0, BOUND)?;
        assert!(stage.read()?.iter().all(|disk| *disk == after[0]), "{word}");
    }
    stage.cluster.shut_down()
}
