//! Lines for logs and pipes: one for each change of phase, nothing repainted.

use form_node::api::types::AttemptEvent;

/// Remembers nothing but the source's name.
pub(crate) struct Plain {
    source: String,
}

impl Plain {
    pub(super) fn new(source: &str) -> Self {
        Self { source: source.to_owned() }
    }

    /// The line that an event deserves.
    pub(super) fn line(&self, event: &AttemptEvent) -> Option<String> {
        match event {
            AttemptEvent::Phase { target, phase, at_ms } => {
                let who = target.as_ref().unwrap_or(&self.source);
                Some(format!("{:>8.3} s  {who}: {phase}", *at_ms as f64 / 1e3))
            }
            AttemptEvent::Snapshot { snapshot_id } => Some(format!("            commit {snapshot_id}")),
            AttemptEvent::Committed { .. } => Some("            committed: it is final".into()),
            AttemptEvent::Failed { error } => Some(format!("            failed: {}", error.message)),
            AttemptEvent::Settled { summary } => {
                Some(format!("            settled: {}", if summary.is_some() { "everyone runs it" } else { "undone" }))
            }
            AttemptEvent::Bytes { .. } => None,
        }
    }
}
