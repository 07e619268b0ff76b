//! The blocking window: from the moment when all are active and nobody may decide alone any more, until a target runs the
//! outcome.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use form_tests::{Cluster, Context, Disks, Error, Result};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// For each target of the last commit, which must have committed: from the coordinator's note that it asks the store for
/// commit(A), to the moment when the machine's record says that it runs; ns. Times of files are up to a tick of the kernel's
/// clock (4 ms, say) behind: a window that seems to end before it began is none.
pub(crate) fn blocking_ns(cluster: &Cluster, source: usize) -> Result<Vec<u64>> {
    let log = cluster.node_ref(source).log();
    let line = log.lines().rev().find(|line| line.contains("phase=Commit"));
    let asked = line.and_then(time_of_day).ok_or_else(|| Error::new(format!("no commit(A) in the log: {line:?}")))?;
    let mut windows = Vec::new();
    for number in (1..=cluster.nodes()).filter(|number| *number != source) {
        let record = Disks::record(cluster, number);
        let io = || format!("look at {}", record.display());
        let written: SystemTime = record.metadata().and_then(|data| data.modified()).context(io)?;
        let runs = written.duration_since(UNIX_EPOCH).context(io)?;
        let runs = Duration::new(runs.as_secs() % DAY.as_secs(), runs.subsec_nanos());
        // Over midnight, if need be.
        let window = if runs + DAY / 2 < asked { runs + DAY - asked } else { runs.saturating_sub(asked) };
        windows.push(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(windows)
}

/// Of a line that begins with `2026-11-28T14:22:00.123456Z`.
fn time_of_day(line: &str) -> Option<Duration> {
    let time = line.get(11..26)?;
    let seconds: u64 = time.get(6..8)?.parse().ok()?;
    let minutes: u64 = time.get(3..5)?.parse().ok()?;
    let hours: u64 = time.get(..2)?.parse().ok()?;
    let micros: u64 = time.get(9..15)?.parse().ok()?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60 + seconds) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_a_line() {
        let line = "2026-11-28T14:22:01.123456Z  INFO node::coordinate: phase attempt=\"a\" phase=Commit";
        assert_eq!(time_of_day(line), Some(Duration::from_micros(51_721_123_456)));
        assert_eq!(time_of_day("no time"), None);
    }
}
