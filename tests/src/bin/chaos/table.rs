//! What was seen, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::plan::Kind;
use crate::run::{Outcome, Seen};

#[derive(Clone, Copy, Default)]
struct Row {
    runs: u32,
    committed: u32,
    undone: u32,
    violations: u32,
    took: Duration,
}

/// By kind of fault.
#[derive(Default)]
pub(crate) struct Table {
    rows: BTreeMap<Kind, Row>,
    windows_ns: Vec<u64>,
}

impl Table {
    /// `seen` is `None` after a violation.
    pub(crate) fn add(&mut self, kind: Kind, seen: Option<Seen>, took: Duration) {
        let row = self.rows.entry(kind).or_default();
        row.runs += 1;
        row.took += took;
        match &seen {
            Some(Seen { outcome: Outcome::Committed, .. }) => row.committed += 1,
            Some(Seen { outcome: Outcome::Undone, .. }) => row.undone += 1,
            None => row.violations += 1,
        }
        self.windows_ns.extend(seen.into_iter().flat_map(|seen| seen.windows_ns));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| fault | runs | committed | undone | violations | s per run |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        let mut all = Row::default();
        let mut line = |name: String, row: &Row| {
            let Row { runs, committed, undone, violations, took } = row;
            let mean = took.as_secs_f64() / f64::from((*runs).max(1));
            writeln!(f, "| {name} | {runs} | {committed} | {undone} | {violations} | {mean:.1} |")
        };
        for (kind, row) in &self.rows {
            line(format!("{kind:?}"), row)?;
            all.runs += row.runs;
            all.committed += row.committed;
            all.undone += row.undone;
            all.violations += row.violations;
            all.took += row.took;
        }
        line("all".into(), &all)?;
        let mut windows = self.windows_ns.clone();
        windows.sort_unstable();
        if let (Some(median), Some(most)) = (windows.get(windows.len() / 2), windows.last()) {
            let ms = |ns: &u64| *ns as f64 / 1e6;
            let count = windows.len();
            writeln!(f, "blocking window: median {:.1} ms, at most {:.1} ms, of {count}", ms(median), ms(most))?;
        }
        Ok(())
    }
}
