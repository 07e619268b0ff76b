//! Bars for terminals: one per target and one for the attempt itself. A bar moves by events alone; a phase whose
//! length nobody knows has a spinner.

use std::collections::BTreeMap;
use std::time::Duration;

use form_node::api::types::AttemptEvent;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// What is on the screen.
pub(crate) struct Bars {
    screen: MultiProgress,
    source: String,
    rows: BTreeMap<String, Row>,
}

struct Row {
    bar: ProgressBar,
    phase: String,
    measured: bool,
}

impl Bars {
    pub(super) fn new(source: &str) -> Self {
        Self { screen: MultiProgress::new(), source: source.to_owned(), rows: BTreeMap::new() }
    }

    pub(super) fn event(&mut self, event: &AttemptEvent) {
        match event {
            AttemptEvent::Phase { target, phase, .. } => self.row(target.as_ref(), phase).spin(),
            AttemptEvent::Bytes { target, phase, done, total } => {
                self.row(target.as_ref(), phase).measure(*done, *total);
            }
            AttemptEvent::Snapshot { .. } => {}
            AttemptEvent::Committed { snapshot_id } => self.note(&format!("committed {snapshot_id}")),
            AttemptEvent::Failed { error } => self.note(&format!("failed: {}; undoing", error.message)),
            AttemptEvent::Settled { .. } => self.finish(),
        }
    }

    pub(super) fn note(&self, text: &str) {
        // The terminal may be gone; there is nobody else to tell.
        let _ = self.screen.println(text);
    }

    pub(super) fn finish(&mut self) {
        for row in std::mem::take(&mut self.rows).into_values() {
            row.bar.finish_and_clear();
        }
    }

    /// The row of a target, in this phase; another phase than before starts at nothing.
    fn row(&mut self, target: Option<&String>, phase: &str) -> &mut Row {
        let name = target.unwrap_or(&self.source);
        let row = self.rows.entry(name.clone()).or_insert_with(|| {
            let bar = self.screen.add(ProgressBar::no_length().with_prefix(name.clone()));
            bar.enable_steady_tick(Duration::from_millis(120));
            Row { bar, phase: String::new(), measured: false }
        });
        if row.phase != phase {
            row.phase = phase.to_owned();
            row.bar.reset();
            row.bar.unset_length();
            row.bar.set_message(phase.to_owned());
            row.measured = false;
            row.bar.set_style(style("{spinner} {prefix:<14!} {msg:<10} {elapsed}"));
        }
        row
    }
}

impl Row {
    fn spin(&self) {
        self.bar.tick();
    }

    fn measure(&mut self, done: u64, total: u64) {
        if !self.measured {
            self.measured = true;
            self.bar.set_style(style(if total == 0 {
                "{spinner} {prefix:<14!} {msg:<10} {binary_bytes} {binary_bytes_per_sec}"
            } else {
                "{spinner} {prefix:<14!} {msg:<10} [{bar:28}] {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left"
            }));
        }
        if total > 0 {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::ProgressDrawTarget;

    fn hidden() -> Bars {
        let bars = Bars::new("demo-1");
        bars.screen.set_draw_target(ProgressDrawTarget::hidden());
        bars
    }

    fn phase(target: &str, phase: &str) -> AttemptEvent {
        AttemptEvent::Phase { target: Some(target.into()), phase: phase.into(), at_ms: 0 }
    }

    fn bytes(target: &str, phase: &str, done: u64, total: u64) -> AttemptEvent {
        AttemptEvent::Bytes { target: Some(target.into()), phase: phase.into(), done, total }
    }

    #[test]
    fn a_bar_stands_where_the_last_event_put_it() {
        let mut bars = hidden();
        for event in [
            phase("demo-2", "stage"),
            bytes("demo-2", "stage", 10, 100),
            phase("demo-3", "stage"),
            bytes("demo-2", "stage", 30, 100),
        ] {
            bars.event(&event);
        }
        let place = |bars: &Bars, name: &str| (bars.rows[name].bar.position(), bars.rows[name].bar.length());
        assert_eq!(place(&bars, "demo-2"), (30, Some(100)));
        assert_eq!(place(&bars, "demo-3"), (0, None));
        bars.event(&phase("demo-2", "verify"));
        assert_eq!(place(&bars, "demo-2"), (0, None), "a new phase starts at nothing, of unknown length");
        bars.event(&bytes("demo-2", "verify", 5, 0));
        assert_eq!(place(&bars, "demo-2"), (5, None));
    }

    #[test]
    fn every_template_is_valid() {
        let source = include_str!("bars.rs");
        let templates: Vec<&str> = source.split('"').filter(|text| text.starts_with("{spinner} {prefix")).collect();
        assert_eq!(templates.len(), 4, "three, and the pattern in this test");
        for template in templates {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
