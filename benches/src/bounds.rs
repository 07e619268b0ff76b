//! What was promised, and whether this run holds it.

use serde::Serialize;

use crate::results::{Comparison, PairResult, Row, ToolResult, median};

/// What an artifact may cost beyond the best peer: its index and a signature's worth of header.
const OVERHEAD_BYTES: f64 = 2048.0;
/// Largest memory of a process, at any image size.
const PROCESS_BYTES: f64 = (256 << 20) as f64;

/// One promise on one pair, or on all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What is bounded.
    pub what: String,
    /// Where: a pair, or a measurement.
    pub of: String,
    /// The bound in words.
    pub bound: String,
    /// What was measured, in the unit of `limit`; `None` if it was not.
    pub figure: Option<f64>,
    /// What it may be. The whole line is a matter of at most or at least.
    pub limit: f64,
    /// Whether `limit` is a least instead of a most.
    pub is_least: bool,
}

impl Line {
    fn at_most(what: &str, of: &str, bound: &str, figure: Option<f64>, limit: f64) -> Line {
        Line { what: what.into(), of: of.into(), bound: bound.into(), figure, limit, is_least: false }
    }

    /// Whether it holds; `None` if it was not measured.
    pub fn holds(&self) -> Option<bool> {
        self.figure.map(|figure| if self.is_least { figure >= self.limit } else { figure <= self.limit })
    }
}

/// Every promise, pair by pair and then the rest.
pub fn lines(comparison: &Comparison, rows: &[Row]) -> Vec<Line> {
    let mut lines: Vec<Line> = comparison.pairs.iter().flat_map(of_pair).collect();
    let ours = || comparison.pairs.iter().filter_map(|pair| pair.tool("form"));
    let most = |values: Vec<f64>| values.into_iter().reduce(f64::max);
    for (side, usage) in [
        ("source", (|tool| tool.source.private_bytes) as fn(&ToolResult) -> u64),
        ("target", |tool| tool.target.private_bytes),
    ] {
        // A commit's node as well as a command.
        let nodes = comparison.pairs.iter().filter_map(|pair| pair.tool("form-commit"));
        let mut values: Vec<f64> = ours().chain(nodes).map(|tool| usage(tool) as f64).collect();
        let verb = if side == "source" { "/make-private" } else { "/apply-private" };
        values.extend(rows.iter().filter(|row| row.bench == "growth" && row.name.ends_with(verb)).map(|row| row.value));
        let mib = most(values).map(|bytes| bytes / f64::from(1 << 20));
        lines.push(Line::at_most(
            "private memory",
            side,
            "≤ 256 MiB at any image size",
            mib,
            PROCESS_BYTES / f64::from(1 << 20),
        ));
    }
    let all_repeat = ours().next().map(|_| if ours().all(|tool| tool.repeats) { 0.0 } else { 1.0 });
    lines.push(Line::at_most("the same input twice", "all pairs", "the same bytes", all_repeat, 0.0));
    let row =
        |bench: &str, name: &str| rows.iter().find(|row| row.bench == bench && row.name == name).map(|row| row.value);
    let hint = "16 GiB image, 1 % changed in runs of 1 MiB, with a hint";
    lines.push(Line::at_most(hint, "diff", "≤ 0.1 × without", row("growth", "hint/ratio"), 0.1));
    lines.extend(of_quic(rows));
    let pause = "≤ 30 ms + 2 × compare pass over RAM";
    lines.push(Line::at_most(
        "pause / its bound",
        "QEMU, RAM 512 MiB to 4 GiB",
        pause,
        row("pause", "worst/ratio"),
        1.0,
    ));
    lines
}

/// Each way of QUIC, as a share of TCP with TLS in the same run.
fn of_quic(rows: &[Row]) -> Vec<Line> {
    const OF_TLS: &str = " / TCP + TLS";
    let line = |of: &str, figure| Line {
        what: "bulk QUIC, bytes per CPU-second".into(),
        of: of.into(),
        bound: "≥ 0.5 × TCP + TLS".into(),
        figure,
        limit: 0.5,
        is_least: true,
    };
    let rows = rows.iter().filter(|row| row.bench == "quic" && row.name.starts_with("QUIC"));
    let lines: Vec<Line> = rows.filter_map(|row| Some(line(row.name.strip_suffix(OF_TLS)?, Some(row.value)))).collect();
    if lines.is_empty() { vec![line("loopback", None)] } else { lines }
}

fn of_pair(pair: &PairResult) -> Vec<Line> {
    let Some(form) = pair.tool("form") else { return Vec::new() };
    let peers = || pair.tools.iter().filter(|tool| tool.role.is_peer() && tool.makes_image);
    let least = |values: Vec<f64>| values.into_iter().reduce(f64::min);
    let source_s = form.source.wall_s;
    let line = |what: &str, bound: &str, figure, limit| Line::at_most(what, &pair.pair, bound, figure, limit);

    let best_bytes = least(peers().map(|peer| peer.wire_bytes as f64).collect());
    let bytes = best_bytes.map(|best| (form.wire_bytes as f64 - OVERHEAD_BYTES).max(0.0) / best);
    let rsync = pair.tool("rsync-z").map(|rsync| source_s / rsync.source.wall_s);
    let floor = floor_s(pair, form).map(|floor_s| source_s / floor_s);
    let fastest_s = least(peers().map(ToolResult::total_s).collect());
    let mut lines = vec![
        line("bytes on the wire", "≤ 1.0 × best peer + 2 KB", bytes, 1.0),
        line("source", "≤ 0.25 × rsync -z", rsync, 0.25),
        line("source", "≤ 1.5 × (compare + zstd of what is sent)", floor, 1.5),
        line("source + target", "≤ 0.8 × fastest peer", fastest_s.map(|fastest_s| form.total_s() / fastest_s), 0.8),
    ];
    if pair.changed_bytes == 0 {
        let compare = pair.tool("compare").map(|compare| source_s / compare.source.wall_s);
        lines.push(line("nothing changed, source", "≤ 1.1 × compare", compare, 1.1));
        lines.push(line("nothing changed, bytes", "≤ 2 KB", Some(form.wire_bytes as f64), OVERHEAD_BYTES));
    }
    lines
}

/// A compare pass, and zstd of the bytes that were really sent, at the levels at which they were.
fn floor_s(pair: &PairResult, form: &ToolResult) -> Option<f64> {
    let compare_s = pair.tool("compare")?.source.wall_s;
    let zstd_s: Vec<f64> = form.runs.iter().filter_map(|run| run.detail["sent"]["zstd_s"].as_f64()).collect();
    (!zstd_s.is_empty()).then(|| compare_s + median(zstd_s))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{process::Usage, results::Run, tools::Role};

    fn tool(name: &str, role: Role, wire_bytes: u64, wall_s: f64, detail: Value) -> ToolResult {
        let source = Usage { wall_s, ..Usage::default() };
        let run = Run { wire_bytes, source, target: Usage::default(), sync_s: 0.0, detail };
        ToolResult {
            tool: name.into(),
            role,
            makes_image: role != Role::Yardstick,
            setup_s: 0.0,
            setup_bytes: 0,
            wire_bytes,
            repeats: true,
            source,
            target: Usage::default(),
            sync_s: 0.0,
            runs: vec![run],
        }
    }

    fn pair(form_bytes: u64, form_s: f64) -> Comparison {
        let sent = serde_json::json!({ "sent": { "zstd_s": 1.0 } });
        let tools = vec![
            tool("form", Role::Ours, form_bytes, form_s, sent),
            tool("compare", Role::Yardstick, 0, 1.0, Value::Null),
            tool("yardstick", Role::Yardstick, 1, 0.1, Value::Null),
            tool("rsync-z", Role::Peer, 10_000, 10.0, Value::Null),
            tool("xdelta3", Role::Peer, 8_000, 50.0, Value::Null),
        ];
        let pair = PairResult { pair: "D1".into(), title: String::new(), image_bytes: 1000, changed_bytes: 200, tools };
        Comparison { machine: String::new(), rounds: 1, pairs: vec![pair] }
    }

    fn figures(comparison: &Comparison) -> Vec<(f64, bool)> {
        let lines = lines(comparison, &[]);
        lines.iter().filter(|line| line.of == "D1").map(|line| (line.figure.unwrap(), line.holds().unwrap())).collect()
    }

    /// Bytes against xdelta3, time against rsync, the floor of 1 s and 1 s.
    #[test]
    fn each_bound_takes_its_own_peer() {
        assert_eq!(figures(&pair(8_000 + 2048, 2.0)), [(1.0, true), (0.2, true), (1.0, true), (0.2, true)]);
        assert_eq!(figures(&pair(16_000 + 2048, 9.0)), [(2.0, false), (0.9, false), (4.5, false), (0.9, false)]);
    }

    /// The rows that the other benchmarks leave, by the names they give them.
    #[test]
    fn nothing_is_left_unmeasured_when_all_have_run() {
        let row =
            |bench: &str, name: &str, value| Row { bench: bench.into(), name: name.into(), value, unit: "".into() };
        let rows = [
            row("growth", "hint/ratio", 0.09),
            row("quic", "QUIC, MTU 1452", 900.0),
            row("quic", "QUIC, MTU 1452 / TCP + TLS", 0.4),
            row("quic", "QUIC, MTU of loopback / TCP + TLS", 1.2),
            row("pause", "worst/ratio", 0.9),
        ];
        let lines = lines(&pair(1, 1.0), &rows);
        assert!(lines.iter().all(|line| line.figure.is_some()), "{lines:?}");
        let held: Vec<_> = lines[lines.len() - 4..].iter().map(|line| (line.figure.unwrap(), line.holds())).collect();
        assert_eq!(held, [(0.09, Some(true)), (0.4, Some(false)), (1.2, Some(true)), (0.9, Some(true))]);
    }

    #[test]
    fn what_was_not_measured_holds_nothing() {
        let lines = lines(&pair(1, 1.0), &[]);
        assert_eq!(lines.iter().filter(|line| line.holds().is_none()).count(), 3);
    }
}
