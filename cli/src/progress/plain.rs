//! Lines for logs and pipes: one for each change of phase, nothing repainted.

use std::collections::HashSet;

use form_node::api::types::AttemptEvent;

use crate::units::bytes;

/// Remembers what was announced.
pub(crate) struct Plain {
    source: String,
    announced: HashSet<(Option<String>, String)>,
}

impl Plain {
    pub(super) fn new(source: &str) -> Self {
        Self { source: source.to_owned(), announced: HashSet::new() }
    }

    /// The line that an event deserves.
    pub(super) fn line(&mut self, event: &AttemptEvent) -> Option<String> {
        match event {
            AttemptEvent::Phase { target, phase, at_ms } => {
                self.announced.insert((target.clone(), phase.clone()));
                let who = target.as_ref().unwrap_or(&self.source);
                Some(format!("{:>8.3} s  {who}: {phase}", *at_ms as f64 / 1e3))
            }
            AttemptEvent::Bytes { target, phase, total, .. } => {
                // What is counted without a phase of its own, said once.
                let first = self.announced.insert((target.clone(), phase.clone()));
                let who = target.as_ref().unwrap_or(&self.source);
                first.then(|| format!("            {who}: {phase}, {}", bytes(*total)))
            }
            AttemptEvent::Warning { target, message } => Some(format!("            {target}: {message}")),
            AttemptEvent::Snapshot { snapshot_id } => Some(format!("            commit {snapshot_id}")),
            AttemptEvent::Committed { .. } => Some("            committed: it is final".into()),
            AttemptEvent::Failed { error } => Some(format!("            failed: {}", error.message)),
            AttemptEvent::Settled { .. } => Some("            settled: everyone has acknowledged".into()),
        }
    }
}
