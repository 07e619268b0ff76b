//! Bars for terminals: a line for the attempt and one for each target, and below it a bar for each thing that is being
//! counted there (several are at once: frames arrive while images are rebuilt). A bar moves by events alone; a phase
//! whose length nobody knows has a spinner.

use std::collections::BTreeMap;
use std::time::Duration;

use form_node::api::types::AttemptEvent;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const HEAD: &str = "{spinner} {prefix:<14!} {msg:<16} {elapsed}";
const MEASURED: &str =
    "  {prefix:<14!} {msg:<16} [{bar:28}] {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
const COUNTED: &str = "{spinner} {prefix:<14!} {msg:<16} {binary_bytes}  {binary_bytes_per_sec}";

/// What is on the screen.
pub(crate) struct Bars {
    screen: MultiProgress,
    source: String,
    groups: BTreeMap<String, Group>,
}

/// One instance: its phase, and what is counted in it.
struct Group {
    head: ProgressBar,
    counted: Vec<(String, ProgressBar)>,
}

impl Bars {
    pub(super) fn new(source: &str) -> Self {
        Self { screen: MultiProgress::new(), source: source.to_owned(), groups: BTreeMap::new() }
    }

    pub(super) fn event(&mut self, event: &AttemptEvent) {
        match event {
            AttemptEvent::Phase { target, phase, .. } => self.phase(target.as_deref(), phase),
            AttemptEvent::Bytes { target, phase, done, total } => self.bytes(target.as_deref(), phase, *done, *total),
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
        for group in std::mem::take(&mut self.groups).into_values() {
            group.clear_counted();
            group.head.finish_and_clear();
        }
    }

    /// Ends what was counted, and begins anew.
    fn phase(&mut self, target: Option<&str>, phase: &str) {
        let group = self.group(target);
        group.clear_counted();
        group.counted.clear();
        group.head.reset_elapsed();
        group.head.set_message(phase.to_owned());
    }

    fn bytes(&mut self, target: Option<&str>, phase: &str, done: u64, total: u64) {
        let screen = self.screen.clone();
        let group = self.group(target);
        let bar = match group.counted.iter().find(|(name, _)| name == phase) {
            Some((_, bar)) => bar.clone(),
            None => {
                let above = group.counted.last().map_or(&group.head, |(_, bar)| bar);
                let bar = screen.insert_after(above, ProgressBar::no_length());
                bar.set_style(style(if total == 0 { COUNTED } else { MEASURED }));
                bar.set_message(phase.to_owned());
                group.counted.push((phase.to_owned(), bar.clone()));
                bar
            }
        };
        if total > 0 {
            bar.set_length(total);
        }
        bar.set_position(done);
    }

    fn group(&mut self, target: Option<&str>) -> &mut Group {
        let name = target.unwrap_or(&self.source);
        self.groups.entry(name.to_owned()).or_insert_with(|| {
            let head = self.screen.add(ProgressBar::no_length().with_prefix(name.to_owned()));
            head.set_style(style(HEAD));
            head.enable_steady_tick(Duration::from_millis(120));
            Group { head, counted: vec![] }
        })
    }
}

impl Group {
    fn clear_counted(&self) {
        for (_, bar) in &self.counted {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::ProgressDrawTarget;

    fn phase(target: &str, phase: &str) -> AttemptEvent {
        AttemptEvent::Phase { target: Some(target.into()), phase: phase.into(), at_ms: 0 }
    }

    fn bytes(target: &str, phase: &str, done: u64, total: u64) -> AttemptEvent {
        AttemptEvent::Bytes { target: Some(target.into()), phase: phase.into(), done, total }
    }

    /// Each bar of an instance: what it counts, where it is, how far it goes.
    fn shown(bars: &Bars, name: &str) -> Vec<(String, u64, Option<u64>)> {
        let counted = bars.groups.get(name).map(|group| group.counted.as_slice()).unwrap_or_default();
        counted.iter().map(|(phase, bar)| (phase.clone(), bar.position(), bar.length())).collect()
    }

    #[test]
    fn a_bar_stands_where_the_last_event_put_it() {
        let mut bars = Bars::new("demo-1");
        bars.screen.set_draw_target(ProgressDrawTarget::hidden());
        for event in [
            bytes("demo-2", "send", 10, 100),
            phase("demo-3", "ready"),
            bytes("demo-2", "rebuild memory", 5, 0),
            bytes("demo-2", "send", 30, 100),
        ] {
            bars.event(&event);
        }
        assert_eq!(shown(&bars, "demo-2"), [("send".into(), 30, Some(100)), ("rebuild memory".into(), 5, None)]);
        assert_eq!(shown(&bars, "demo-3"), []);
        bars.event(&phase("demo-2", "ready"));
        assert_eq!(shown(&bars, "demo-2"), [], "another phase begins at nothing");
        bars.event(&AttemptEvent::Settled { summary: None });
        assert!(bars.groups.is_empty());
    }

    #[test]
    fn every_template_is_valid() {
        for template in [HEAD, MEASURED, COUNTED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
