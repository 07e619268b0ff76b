//! What is known of an attempt while it runs: a row for the source, which speaks for the attempt, and one for each target.

use std::time::Instant;

use form_node::api::types::AttemptEvent;

use super::step::{Amount, Step};
use crate::words::list;

/// Rows in the order in which they are shown; the source is the first.
pub(super) struct Board {
    rows: Vec<Row>,
    began: Instant,
}

/// One participant.
struct Row {
    name: String,
    /// Of the source: the attempt's phase. Of a target: what it said last.
    phase: String,
    phase_began: Instant,
    /// What is counted in this phase, in the order in which it began.
    steps: Vec<Step>,
    /// How far it is as a participant.
    said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Nothing,
    Ready,
    Active,
    Settled,
}

impl Said {
    fn parse(phase: &str) -> Option<Self> {
        match phase {
            "ready" => Some(Self::Ready),
            "active" => Some(Self::Active),
            "settled" => Some(Self::Settled),
            _ => None,
        }
    }

    /// What everyone has to say for a phase of the attempt to end.
    fn that_ends(phase: &str) -> Option<Self> {
        match phase {
            "stage" => Some(Self::Ready),
            "activate" => Some(Self::Active),
            "finalize" | "undo" => Some(Self::Settled),
            _ => None,
        }
    }
}

impl Board {
    pub(super) fn new(source: &str, targets: &[String], now: Instant) -> Self {
        let row = |name: &str| Row {
            name: name.to_owned(),
            phase: String::new(),
            phase_began: now,
            steps: vec![],
            said: Said::Nothing,
        };
        let mut targets: Vec<Row> = targets.iter().map(|name| row(name)).collect();
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        targets.insert(0, row(source));
        Self { rows: targets, began: now }
    }

    pub(super) fn event(&mut self, event: &AttemptEvent, now: Instant) {
        match event {
            AttemptEvent::Phase { target, phase, .. } => {
                let speaks_for_all = target.is_none();
                let is_source = self.rows.first().is_some_and(|row| target.as_ref() == Some(&row.name));
                let Some(row) = self.row(target.as_deref()) else { return };
                if let Some(said) = Said::parse(phase).filter(|_| !speaks_for_all) {
                    row.said = row.said.max(said);
                }
                // What the source says as a participant does not end what the attempt is doing.
                if !is_source {
                    row.phase.clone_from(phase);
                    row.phase_began = now;
                    row.steps.clear();
                }
            }
            AttemptEvent::Bytes { target, phase, done, total } => {
                let Some(row) = self.row(target.as_deref()) else { return };
                // Counts may arrive after the word that ended their phase.
                if target.is_none() || row.said == Said::Nothing {
                    row.count(phase, *done, *total, now);
                }
            }
            // What was being done is not done any further.
            AttemptEvent::Failed { .. } => self.rows.iter_mut().for_each(|row| row.steps.clear()),
            _ => {}
        }
    }

    fn row(&mut self, target: Option<&str>) -> Option<&mut Row> {
        match target {
            None => self.rows.first_mut(),
            Some(name) => self.rows.iter_mut().find(|row| row.name == name),
        }
    }

    /// Who has not said what the attempt's phase waits for.
    fn awaited(&self) -> Vec<&str> {
        let said = self.rows.first().and_then(|source| Said::that_ends(&source.phase));
        let missing = |row: &&Row| said.is_some_and(|said| row.said < said);
        self.rows.iter().filter(missing).map(|row| row.name.as_str()).collect()
    }

    /// A line for each row, none wider than `columns`.
    pub(super) fn lines(&self, now: Instant, columns: usize) -> Vec<String> {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).min(24);
        let awaited = self.awaited();
        let lines = self.rows.iter().enumerate().map(|(number, row)| {
            let mark = match (number, row.said) {
                (0, _) => SPINNER.get(self.ticks(now) % SPINNER.len()).copied().unwrap_or(' '),
                (_, Said::Settled) => '✓',
                _ => ' ',
            };
            let head = format!("{mark} {:width$}  ", row.name.chars().take(width).collect::<String>());
            let room = columns.saturating_sub(head.chars().count());
            let rest = match row.step() {
                Some(step) => step.text(now, room),
                None if number == 0 && !awaited.is_empty() => {
                    format!("{:<9}  {} s  waits for {}", row.phase, row.seconds(now), list(&awaited))
                }
                None if number == 0 => format!("{:<9}  {} s", row.phase, row.seconds(now)),
                None => row.phase.clone(),
            };
            format!("{head}{rest}").chars().take(columns).collect::<String>().trim_end().to_owned()
        });
        lines.collect()
    }

    fn ticks(&self, now: Instant) -> usize {
        usize::try_from(now.saturating_duration_since(self.began).as_millis() / 120).unwrap_or(0)
    }
}

impl Row {
    /// `phase` names what is counted and, after a blank, of what.
    fn count(&mut self, phase: &str, done_bytes: u64, total_bytes: u64, now: Instant) {
        let (name, part) = phase.split_once(' ').unwrap_or((phase, ""));
        let amount = Amount { done_bytes, total_bytes };
        match self.steps.iter_mut().find(|step| step.name == name) {
            Some(step) => step.count(part, amount, now),
            None => {
                let mut step = Step::new(name);
                step.count(part, amount, now);
                self.steps.push(step);
            }
        }
    }

    /// Several things are counted at once, since images are built beside each other: the first that is not over.
    fn step(&self) -> Option<&Step> {
        self.steps.iter().find(|step| !step.is_over()).or(self.steps.last())
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.phase_began).as_secs()
    }
}

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn phase(target: Option<&str>, phase: &str) -> AttemptEvent {
        AttemptEvent::Phase { target: target.map(str::to_owned), phase: phase.into(), at_ms: 0 }
    }

    fn bytes(target: Option<&str>, phase: &str, done_mib: u64, total_mib: u64) -> AttemptEvent {
        let target = target.map(str::to_owned);
        AttemptEvent::Bytes { target, phase: phase.into(), done: done_mib << 20, total: total_mib << 20 }
    }

    /// What is shown after these events, one every half second.
    fn shown(events: &[AttemptEvent]) -> Vec<String> {
        let began = Instant::now();
        let mut board = Board::new("demo-1", &["demo-3".into(), "demo-2".into()], began);
        let mut now = began;
        for event in events {
            now += Duration::from_millis(500);
            board.event(event, now);
        }
        // Without the spinner, which is another one each time.
        board.lines(now, 80).iter().map(|line| line.chars().skip(2).collect()).collect()
    }

    #[test]
    fn a_row_for_each_with_phase_bytes_rate_and_time_left() {
        let stage = [
            phase(None, "stage"),
            bytes(Some("demo-2"), "send", 0, 100),
            bytes(Some("demo-2"), "send", 10, 100),
            bytes(Some("demo-2"), "send", 20, 100),
            phase(Some("demo-3"), "ready"),
        ];
        assert_eq!(
            shown(&stage),
            [
                "demo-1  stage      2 s  waits for demo-1 and demo-2",
                "demo-2  send       [>        ]  20.0 MiB of 100.0 MiB   13.3 MiB/s  6 s left",
                "demo-3  ready",
            ]
        );
    }

    #[test]
    fn what_is_counted_side_by_side_is_one_bar() {
        let mut events = vec![
            phase(None, "stage"),
            bytes(Some("demo-2"), "send", 7, 7),
            bytes(Some("demo-2"), "apply memory", 100, 512),
            bytes(Some("demo-2"), "verify device", 1, 1),
            bytes(Some("demo-2"), "apply disk0", 20, 88),
        ];
        assert!(shown(&events)[1].contains("apply  ") && shown(&events)[1].contains(" 120.0 MiB of 600.0 MiB "));
        events.push(bytes(Some("demo-2"), "apply memory", 512, 512));
        events.push(bytes(Some("demo-2"), "apply disk0", 88, 88));
        assert_eq!(shown(&events)[1], "demo-2  verify     1.0 MiB done");
        events.push(phase(Some("demo-2"), "ready"));
        events.push(bytes(Some("demo-2"), "verify memory", 512, 512));
        assert_eq!(shown(&events)[1], "demo-2  ready", "a count that comes late brings no bar back");
    }

    #[test]
    fn the_source_speaks_for_the_attempt() {
        let events = [phase(None, "encode"), bytes(None, "encode memory", 1, 2), phase(None, "stage")];
        assert!(shown(&events[..2])[0].contains(" 1.0 MiB of 2.0 MiB"));
        assert_eq!(shown(&events)[0], "demo-1  stage      0 s  waits for demo-1, demo-2 and demo-3");
        let ready = [phase(None, "stage"), phase(Some("demo-1"), "ready")];
        assert_eq!(shown(&ready)[0], "demo-1  stage      0 s  waits for demo-2 and demo-3");
        assert_eq!(shown(&[phase(None, "commit")])[0], "demo-1  commit     0 s");
    }

    #[test]
    fn a_failure_takes_the_bars_away() {
        let error = form_node::ApiError::new(form_node::ErrorCode::TargetUnavailable, "demo-2 is down");
        let events = [
            phase(None, "stage"),
            bytes(Some("demo-2"), "send", 1, 2),
            phase(Some("demo-3"), "ready"),
            AttemptEvent::Failed { error },
            phase(None, "undo"),
            phase(Some("demo-3"), "settled"),
        ];
        assert_eq!(
            shown(&events),
            ["demo-1  undo       0 s  waits for demo-1 and demo-2", "demo-2", "demo-3  settled"]
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let began = Instant::now();
        let mut board = Board::new(&"n".repeat(60), &["demo-2".into()], began);
        board.event(&bytes(Some("demo-2"), "send", 1, 1 << 30), began);
        for columns in [0, 1, 20, 40, 79, 80, 200] {
            let lines = board.lines(began, columns);
            assert_eq!(lines.len(), 2);
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{columns}: {lines:?}");
        }
    }
}
