//! One run: everybody is changed, one of them is committed, something breaks, and then all is looked at.

use std::thread::sleep;
use std::time::Duration;

use form_tests::{Cluster, Commit, Context, Ended, Error, Network, Result, at_rest};

use crate::fault::strike;
use crate::machines::{Image, Machines, all_come_from};
use crate::plan::{Plan, When};
use crate::window;

/// How long anything may take once nothing is broken any more: the lock's life, a dead connection's, and a busy host.
const BOUND: Duration = Duration::from_secs(90);

/// What became of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Every instance is the source, as it was.
    Committed,
    /// Every instance is what it was: aborted, or refused before it began.
    Undone,
}

/// What a run showed.
pub(crate) struct Seen {
    pub(crate) outcome: Outcome,
    /// Of the commit after it, in which nothing was broken: for each target, in ns.
    pub(crate) windows_ns: Vec<u64>,
}

pub(crate) fn run(plan: &Plan, cluster: &mut Cluster, network: &Network, machines: &mut Machines) -> Result<Seen> {
    for number in 1..=cluster.nodes() {
        machines.change(cluster, number, plan.seed)?;
    }
    let before = machines.images(cluster)?;
    let history = history(cluster)?;

    let mut commits = vec![(plan.source, begin(cluster, plan.source)?)];
    let mut second = None;
    if let Some((_, commit)) = commits.first_mut() {
        match plan.when {
            When::After(time) => sleep(time),
            When::At(word, time) => {
                // It may end before: then the fault comes after it.
                commit.wait_for(word, BOUND);
                sleep(time);
            }
        }
        strike(plan, cluster, network, commit, |cluster| {
            let other = plan.victims[0];
            second = Some((other, begin(cluster, other)?));
            Ok(())
        })?;
    }
    commits.extend(second);
    let mut ends = Vec::new();
    for (source, commit) in commits {
        ends.push((source, commit.end(BOUND)?));
    }

    at_rest(cluster, machines.vms(), BOUND)?;
    let added = added(&history, cluster)?;
    for (source, end) in &ends {
        believable(end, added.contains(source)).context(|| format!("the commit of {source} said {end:?}"))?;
    }
    let images = machines.images(cluster)?;
    // A second one that began after the first was through has committed that.
    let won = added.first().copied();
    all_come_from(&images, &before, |number| won.unwrap_or(number))
        .context(|| format!("committed was {won:?}, of which this came: {ends:?}"))?;

    let windows_ns = next_commit(plan, cluster, machines, &images)?;
    Ok(Seen { outcome: if won.is_some() { Outcome::Committed } else { Outcome::Undone }, windows_ns })
}

fn begin(cluster: &Cluster, source: usize) -> Result<Commit> {
    Commit::begin(&cluster.form(source), &format!("d-{source}"), &source.to_string(), &[])
}

/// Ids and descriptions, oldest first; all instances have the same.
fn history(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let of = |number: usize| -> Result<Vec<(String, String)>> {
        let instance = cluster.form(1).instance(&format!("d-{number}"))?;
        Ok(instance.snapshots.into_iter().map(|snapshot| (snapshot.snapshot_id, snapshot.description)).collect())
    };
    let first = of(1)?;
    for number in 2..=cluster.nodes() {
        let other = of(number)?;
        // One that joined later knows what came before it, or does not.
        let common = first.len().min(other.len());
        if first[first.len() - common..] != other[other.len() - common..] {
            return Err(Error::new(format!("d-1 has the history {first:?}, d-{number} {other:?}")));
        }
    }
    Ok(first)
}

/// The sources of the commits that have come to the history.
fn added(before: &[(String, String)], cluster: &Cluster) -> Result<Vec<usize>> {
    let now = history(cluster)?;
    // Of a long one only the newest are told.
    let old = |id: &String| before.iter().any(|(known, _)| known == id);
    let new: Vec<_> = now.iter().filter(|(id, _)| !old(id)).collect();
    if !now.ends_with(&new.iter().map(|one| (*one).clone()).collect::<Vec<_>>()) {
        return Err(Error::new(format!("the history was {before:?} and is {now:?}")));
    }
    new.iter().map(|(_, source)| source.parse().context(|| format!("read {source} as a source"))).collect()
}

/// What `form manage commit` said is true, and it has a word for what it does not know.
fn believable(end: &Ended, committed: bool) -> Result<()> {
    let said = match end.exit_code {
        _ if end.said_committed() => Some(true),
        // Killed, or lost sight of its node.
        None | Some(9) => None,
        Some(0) => Some(true),
        Some(5..=8) => Some(false),
        Some(code) => return Err(Error::new(format!("exit code {code}"))),
    };
    match said {
        Some(said) if said != committed => Err(Error::new(format!("committed: {committed}"))),
        _ => Ok(()),
    }
}

/// Nothing is broken: it succeeds, and every instance is its source.
fn next_commit(plan: &Plan, cluster: &Cluster, machines: &mut Machines, before: &[Image]) -> Result<Vec<u64>> {
    let what = || "the next commit".to_owned();
    let end = begin(cluster, plan.next)?.end(BOUND).context(what)?;
    if end.exit_code != Some(0) {
        return Err(Error::new(format!("the next commit failed: {end:?}")));
    }
    at_rest(cluster, machines.vms(), BOUND).context(what)?;
    all_come_from(&machines.images(cluster)?, before, |_| plan.next).context(what)?;
    match machines {
        Machines::Disks(_) => window::blocking_ns(cluster, plan.next),
        Machines::Guests(_) => Ok(Vec::new()),
    }
}
