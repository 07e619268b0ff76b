//! Something that is counted in bytes: how far it is, how fast, and how long it takes yet.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::units::bytes;

/// The rate is that of the last seconds: what was before says nothing of what comes.
const RATE_OVER: Duration = Duration::from_secs(4);

/// A shorter time gives no rate that means anything.
const RATE_OVER_MIN: Duration = Duration::from_millis(250);

/// The bar's width in a terminal of any sensible width.
const BAR_COLUMNS: std::ops::RangeInclusive<usize> = 4..=24;

#[derive(Clone, Copy, Default)]
pub(super) struct Amount {
    pub(super) done_bytes: u64,
    /// 0 when nobody knows.
    pub(super) total_bytes: u64,
}

/// One kind of work on one instance; its parts (images) are worked on side by side.
pub(super) struct Step {
    pub(super) name: String,
    parts: BTreeMap<String, Amount>,
    samples: VecDeque<(Instant, u64)>,
}

impl Step {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), parts: BTreeMap::new(), samples: VecDeque::new() }
    }

    pub(super) fn count(&mut self, part: &str, amount: Amount, now: Instant) {
        // It stood still because there was nothing to do: that says nothing of how fast it is.
        if self.is_over() {
            self.samples.clear();
        }
        self.parts.insert(part.to_owned(), amount);
        self.samples.push_back((now, self.sum().done_bytes));
        // One that is older than the time that counts stays: the rate is measured from there.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_OVER) {
            self.samples.pop_front();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.parts.values().all(|part| part.total_bytes > 0 && part.done_bytes >= part.total_bytes)
    }

    fn sum(&self) -> Amount {
        self.parts.values().fold(Amount::default(), |sum, part| Amount {
            done_bytes: sum.done_bytes.saturating_add(part.done_bytes),
            total_bytes: sum.total_bytes.saturating_add(part.total_bytes),
        })
    }

    /// Falls while nothing is heard, to nothing.
    fn bytes_per_second(&self, now: Instant) -> Option<f64> {
        let old = |(at, _): &&(Instant, u64)| now.saturating_duration_since(*at) >= RATE_OVER;
        let (since, before) = *self.samples.iter().rev().find(old).or(self.samples.front())?;
        let took = now.saturating_duration_since(since);
        let done = self.sum().done_bytes.saturating_sub(before);
        (took >= RATE_OVER_MIN).then(|| done as f64 / took.as_secs_f64())
    }

    /// In so many columns, or a few more on a terminal that is too narrow.
    pub(super) fn text(&self, now: Instant, columns: usize) -> String {
        let Amount { done_bytes, total_bytes } = self.sum();
        if self.is_over() {
            // A full bar would say that all is done; what comes next has not been heard of yet.
            return format!("{:<9}  {} done", self.name, bytes(done_bytes));
        }
        let rate = self.bytes_per_second(now);
        let rate_text = rate.map_or(String::new(), |rate| format!("{}/s", bytes(rate as u64)));
        if total_bytes == 0 {
            return format!("{:<9}  {:>9}  {rate_text}", self.name, bytes(done_bytes));
        }
        let left = match rate {
            None => String::new(),
            Some(rate) if rate < 1.0 => "stalled".into(),
            Some(rate) => time_left((total_bytes.saturating_sub(done_bytes) as f64 / rate).ceil() as u64),
        };
        let figures = format!("{:>9} of {:<9}  {rate_text:>11}  {left:<9}", bytes(done_bytes), bytes(total_bytes));
        let room = columns.saturating_sub(figures.chars().count() + 15);
        let bar = bar(done_bytes, total_bytes, room.clamp(*BAR_COLUMNS.start(), *BAR_COLUMNS.end()));
        format!("{:<9}  [{bar}] {figures}", self.name)
    }
}

fn bar(done: u64, total: u64, columns: usize) -> String {
    let part = done.min(total) as f64 / total.max(1) as f64;
    let full = ((part * columns as f64) as usize).min(columns);
    match full {
        0 => " ".repeat(columns),
        full if full == columns => "=".repeat(columns),
        full => format!("{}>{}", "=".repeat(full - 1), " ".repeat(columns - full)),
    }
}

fn time_left(seconds: u64) -> String {
    match seconds {
        0..100 => format!("{seconds} s left"),
        100..6000 => format!("{} min left", seconds.div_ceil(60)),
        _ => format!("{} h left", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let count = |step: &mut Step, done_bytes: u64, ms: u64| {
            step.count("", Amount { done_bytes, total_bytes: 1_000_000 }, at(ms));
        };
        let mut step = Step::new("send");
        assert_eq!(step.bytes_per_second(at(0)), None);
        count(&mut step, 500, 0);
        assert_eq!(step.bytes_per_second(at(100)), None, "of a moment");
        count(&mut step, 1500, 1000);
        assert_eq!(step.bytes_per_second(at(1000)), Some(1000.0), "what was there at first was not done in no time");
        assert_eq!(step.bytes_per_second(at(3000)), Some(1000.0 / 3.0), "nothing more was heard");
        assert_eq!(step.bytes_per_second(at(5000)), Some(0.0));
        assert!(step.text(at(5000), 80).ends_with("  0 B/s  stalled  "), "{}", step.text(at(5000), 80));
        for second in 2..20 {
            count(&mut step, 1500 + second * 8000, second * 1000);
        }
        assert_eq!(step.bytes_per_second(at(19_000)), Some(8000.0));
        assert!(step.samples.len() < 8, "{}", step.samples.len());

        let mut waited = Step::new("apply");
        let part = |done_bytes| Amount { done_bytes, total_bytes: 1000 };
        waited.count("device", part(1000), at(0));
        waited.count("memory", part(100), at(60_000));
        waited.count("memory", part(300), at(61_000));
        assert_eq!(waited.bytes_per_second(at(61_000)), Some(200.0));
    }

    #[test]
    fn bars_and_times() {
        assert_eq!([0, 1, 50, 99, 100, 200].map(|done| bar(done, 100, 4)).join("|"), "    |    |=>  |==> |====|====");
        assert_eq!([0, 99, 100, 6000].map(time_left).join(" "), "0 s left 99 s left 2 min left 2 h left");
    }
}
