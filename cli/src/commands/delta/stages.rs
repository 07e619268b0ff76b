//! How long each stage took, and how much memory the process had.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::units;

/// Stages in the order in which they first ran.
pub(super) struct Stages {
    begun: Instant,
    stages: Vec<(&'static str, Duration)>,
}

impl Stages {
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), stages: Vec::new() }
    }

    /// Runs a stage; one of that name adds to it.
    pub(super) fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = stage();
        self.add(name, begun.elapsed());
        result
    }

    pub(super) fn add(&mut self, name: &'static str, time: Duration) {
        match self.stages.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += time,
            None => self.stages.push((name, time)),
        }
    }

    /// Takes time from a stage that another one, run within it, is known to have used.
    pub(super) fn subtract(&mut self, name: &'static str, time: Duration) {
        if let Some((_, sum)) = self.stages.iter_mut().find(|(known, _)| *known == name) {
            *sum = sum.saturating_sub(time);
        }
    }

    /// Adds what every report ends with.
    pub(super) fn add_to(&self, report: &mut Map<String, Value>) {
        let stages: Map<_, _> =
            self.stages.iter().map(|(name, time)| ((*name).to_owned(), time.as_secs_f64().into())).collect();
        report.insert("stages_s".into(), stages.into());
        report.insert("total_s".into(), self.begun.elapsed().as_secs_f64().into());
        report.insert("peak_rss_bytes".into(), peak_rss_bytes().into());
    }

    /// The same as two lines for people.
    pub(super) fn lines(&self) -> String {
        let ns = |time: Duration| units::duration_ns(time.as_nanos() as u64);
        let stages: Vec<_> = self.stages.iter().map(|(name, time)| format!("{name} {}", ns(*time))).collect();
        let peak = peak_rss_bytes().map_or("not known".into(), units::bytes);
        format!(
            "time    {} ({})\nmemory  {peak} at most, mapped images included",
            ns(self.begun.elapsed()),
            stages.join(", ")
        )
    }
}

/// The most that was resident at once. Linux counts pages of mapped files in.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
