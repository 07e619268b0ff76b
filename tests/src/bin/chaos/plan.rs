//! What goes wrong in a run, and when: all of it from the run's seed.

use std::time::Duration;

use fastrand::Rng;

/// The kinds of faults; runs with neighbouring seeds have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `kill -9` of the source's node, which coordinates.
    KillSource,
    /// `kill -9` of a target's node.
    KillTarget,
    /// Both at once.
    KillTwo,
    /// `kill -9` of any node, and again while it starts or soon after.
    KillTwice,
    /// SIGSTOP of the source's node, later SIGCONT.
    FreezeSource,
    /// The same with a target's.
    FreezeTarget,
    /// `kill -9` of `form manage commit`.
    KillCli,
    /// Another instance is committed meanwhile.
    SecondCommit,
    /// The source's node is cut off the network.
    CutSource,
    /// A target's node is.
    CutTarget,
    /// A third of the packets from and to a node is lost.
    Loss,
    /// A node's cable becomes slow, with long queues.
    Slow,
}

pub(crate) const KINDS: [Kind; 12] = [
    Kind::KillSource,
    Kind::KillTarget,
    Kind::KillTwo,
    Kind::KillTwice,
    Kind::FreezeSource,
    Kind::FreezeTarget,
    Kind::KillCli,
    Kind::SecondCommit,
    Kind::CutSource,
    Kind::CutTarget,
    Kind::Loss,
    Kind::Slow,
];

/// Words of a commit's events, in their order.
const WORDS: [&str; 14] = [
    "accepted",
    "preflight",
    "warm",
    "pause",
    "diff",
    "encode",
    "stage",
    "ready",
    "confirm",
    "activate",
    "active",
    "commit",
    "committed",
    "settled",
];

/// When the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// So long after `form manage commit` was started.
    After(Duration),
    /// So long after its next event of that word.
    At(&'static str, Duration),
}

/// One run. Nodes are numbers from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    /// Whose instance is committed.
    pub(crate) source: usize,
    /// The nodes that the fault is for.
    pub(crate) victims: Vec<usize>,
    pub(crate) when: When,
    /// Until it is mended: a killed node runs again, a frozen one goes on, a cable is whole.
    pub(crate) lasts: Duration,
    /// Whose instance is committed next, when all is well again.
    pub(crate) next: usize,
}

impl Plan {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        let kind = KINDS[usize::try_from(seed % KINDS.len() as u64).unwrap_or(0)];
        let source = random.usize(1..=nodes);
        let targets: Vec<usize> = (1..=nodes).filter(|number| *number != source).collect();
        let target = targets[random.usize(..targets.len())];
        let victims = match kind {
            Kind::KillSource | Kind::FreezeSource | Kind::CutSource => vec![source],
            Kind::KillTarget | Kind::FreezeTarget | Kind::CutTarget | Kind::SecondCommit => vec![target],
            Kind::KillTwo if random.bool() => targets,
            Kind::KillTwo => vec![source, target],
            Kind::KillTwice | Kind::Loss | Kind::Slow => vec![random.usize(1..=nodes)],
            Kind::KillCli => Vec::new(),
        };
        let when = match random.u8(0..3) {
            0 => When::After(ms(&mut random, 800)),
            _ => When::At(WORDS[random.usize(..WORDS.len())], ms(&mut random, 30)),
        };
        // Mostly short; sometimes longer than a connection, or the cluster's lock, lives.
        let longest_ms = match random.u8(0..20) {
            0 => 17_000,
            1..=4 => 7_000,
            _ => 1_500,
        };
        Self { seed, kind, source, victims, when, lasts: ms(&mut random, longest_ms), next: random.usize(1..=nodes) }
    }
}

/// Below `most_ms`, and often far below.
fn ms(random: &mut Rng, most_ms: u64) -> Duration {
    let most = random.u64(0..=most_ms);
    Duration::from_millis(random.u64(0..=most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_plan_and_neighbours_differ_in_kind() {
        for seed in 0..500 {
            let plan = Plan::new(seed, 3);
            assert_eq!(plan, Plan::new(seed, 3));
            assert!(plan.victims.iter().all(|victim| (1..=3).contains(victim)), "{plan:?}");
            let of_source = matches!(plan.kind, Kind::KillSource | Kind::FreezeSource | Kind::CutSource);
            assert!(!of_source || plan.victims == [plan.source], "{plan:?}");
        }
        let mut kinds: Vec<Kind> = (7..7 + KINDS.len() as u64).map(|seed| Plan::new(seed, 3).kind).collect();
        kinds.sort();
        assert_eq!(kinds, KINDS);
    }
}
