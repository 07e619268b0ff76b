//! Figures as Markdown.

use crate::{
    bounds::Line,
    results::{Comparison, PairResult, Row, ToolResult},
    tools::Role,
};

/// A table for each pair; what sends least first, yardsticks where they fall.
pub fn comparison(comparison: &Comparison) -> String {
    let pairs: Vec<String> = comparison.pairs.iter().map(of_pair).collect();
    pairs.join("\n")
}

fn of_pair(pair: &PairResult) -> String {
    let mib = mib_of(pair.changed_bytes as f64);
    let mut text = format!("### {}: {}\n\n{mib:.2} MiB differ, in blocks of 4 KiB.\n\n", pair.pair, pair.title);
    text += "| tool | bytes on the wire | set-up s (MiB) | source s (CPU) | target s (CPU) | of it fsync | private MiB | resident MiB |\n";
    text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let mut tools: Vec<&ToolResult> = pair.tools.iter().collect();
    tools.sort_by_key(|tool| (tool.wire_bytes, tool.tool.clone()));
    for tool in tools {
        let name = if tool.role == Role::Ours { format!("**{}**", tool.tool) } else { tool.tool.clone() };
        let setup = match tool.setup_s > 0.0 {
            true => format!("{:.2} ({:.1})", tool.setup_s, mib_of(tool.setup_bytes as f64)),
            false => String::new(),
        };
        let (source, target) = (tool.source, tool.target);
        let (target_s, sync_s) = match tool.makes_image {
            true => (format!("{:.2} ({:.2})", target.wall_s, target.cpu_s), format!("{:.2}", tool.sync_s)),
            false => Default::default(),
        };
        text += &format!(
            "| {name} | {} | {setup} | {:.2} ({:.2}) | {target_s} | {sync_s} | {:.0} / {:.0} | {:.0} / {:.0} |\n",
            thousands(tool.wire_bytes),
            source.wall_s,
            source.cpu_s,
            mib_of(source.private_bytes as f64),
            mib_of(target.private_bytes as f64),
            mib_of(source.resident_bytes as f64),
            mib_of(target.resident_bytes as f64),
        );
    }
    text
}

/// What was promised.
pub fn bounds(lines: &[Line]) -> String {
    let mut text = "| what | on | must reach | measured | |\n| --- | --- | --- | ---: | --- |\n".to_owned();
    for line in lines {
        let figure = line.figure.map_or("not measured".to_owned(), |figure| match line.limit {
            limit if limit >= 100.0 => format!("{figure:.0}"),
            _ => format!("{figure:.2}"),
        });
        let holds = match line.holds() {
            Some(true) => "holds",
            Some(false) => "**does not hold**",
            None => "",
        };
        text += &format!("| {} | {} | {} | {figure} | {holds} |\n", line.what, line.of, line.bound);
    }
    text
}

/// Rows of other benchmarks, as they are.
pub fn rows(rows: &[Row]) -> String {
    let mut text = "| benchmark | what | figure | unit |\n| --- | --- | ---: | --- |\n".to_owned();
    for row in rows {
        text += &format!("| {} | {} | {} | {} |\n", row.bench, row.name, significant(row.value), row.unit);
    }
    text
}

/// How `form delta` grows.
pub fn growth(rows: &[Row]) -> String {
    const METRICS: [(&str, &str); 7] = [
        ("compare", "compare s"),
        ("index", "index s"),
        ("make", "make s"),
        ("apply", "apply s"),
        ("bytes", "delta MiB"),
        ("make-private", "make private MiB"),
        ("apply-private", "apply private MiB"),
    ];
    by_place(rows, &["series", "x"], &METRICS)
}

/// How a commit grows with its targets.
pub fn targets(rows: &[Row]) -> String {
    const METRICS: [(&str, &str); 6] = [
        ("wall", "command to settled s"),
        ("staged", "of it until all have staged s"),
        ("source-cpu", "source's node CPU s"),
        ("target-cpu", "other nodes CPU s"),
        ("encoded", "frames MiB"),
        ("sent", "sent MiB"),
    ];
    by_place(rows, &["targets"], &METRICS)
}

/// The pause, its parts and its bound.
pub fn pause(rows: &[Row]) -> String {
    const METRICS: [(&str, &str); 11] = [
        ("in-use", "in use MiB"),
        ("pause", "pause ms"),
        ("stop", "stop"),
        ("device state", "device state"),
        ("copy", "copy"),
        ("cont", "cont"),
        ("read", "read MiB"),
        ("copied", "copied MiB"),
        ("compare", "compare pass ms"),
        ("bound", "bound ms"),
        ("ratio", "pause / bound"),
    ];
    by_place(rows, &["memory MiB", "rewritten MiB"], &METRICS)
}

/// A place in rows, what was measured there in columns; bytes in MiB. Rows whose place has other parts than `place` names are left out.
fn by_place(rows: &[Row], place: &[&str], metrics: &[(&str, &str)]) -> String {
    let heads: Vec<&str> = place.iter().copied().chain(metrics.iter().map(|(_, head)| *head)).collect();
    let mut text = format!("| {} |\n|{}\n", heads.join(" | "), " ---: |".repeat(heads.len()));
    for at in places_of(rows).into_iter().filter(|at| at.split('/').count() == place.len()) {
        text += &format!("| {} |", at.replace('/', " | "));
        for (metric, _) in metrics {
            let row = rows.iter().find(|row| row.name.strip_prefix(at) == Some(&format!("/{metric}")));
            let figure = row.map(|row| if row.unit == "bytes" { mib_of(row.value) } else { row.value });
            text += &figure.map_or(" |".to_owned(), |figure| format!(" {} |", significant(figure)));
        }
        text.push('\n');
    }
    text
}

/// Where something was measured: rows' names without what it was, each once.
pub fn places_of(rows: &[Row]) -> Vec<&str> {
    let mut places: Vec<&str> = rows.iter().filter_map(|row| Some(row.name.rsplit_once('/')?.0)).collect();
    places.dedup();
    places
}

/// Three digits, or all before the point.
pub fn significant(value: f64) -> String {
    match value.abs() {
        value if value >= 100.0 => thousands(value.round() as u64),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Bytes in MiB.
pub fn mib_of(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_have_commas() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
