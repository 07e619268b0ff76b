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
    let mib = pair.changed_bytes as f64 / f64::from(1 << 20);
    let mut text = format!("### {}: {}\n\n{mib:.2} MiB differ, in blocks of 4 KiB.\n\n", pair.pair, pair.title);
    text += "| tool | bytes on the wire | set-up s (MiB) | source s (CPU) | target s (CPU) | of it fsync | private MiB | resident MiB |\n";
    text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let mut tools: Vec<&ToolResult> = pair.tools.iter().collect();
    tools.sort_by_key(|tool| (tool.wire_bytes, tool.tool.clone()));
    for tool in tools {
        let name = if tool.role == Role::Ours { format!("**{}**", tool.tool) } else { tool.tool.clone() };
        let setup = match tool.setup_s > 0.0 {
            true => format!("{:.2} ({:.1})", tool.setup_s, mib_of(tool.setup_bytes)),
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
            mib_of(source.private_bytes),
            mib_of(target.private_bytes),
            mib_of(source.resident_bytes),
            mib_of(target.resident_bytes),
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

/// A series in rows, what was measured in columns. Rows that belong to no series of figures are left out.
pub fn growth(rows: &[Row]) -> String {
    const METRICS: [&str; 7] = ["compare", "index", "make", "apply", "bytes", "make-private", "apply-private"];
    let mut text =
        "| series | x | compare s | index s | make s | apply s | delta MiB | make private MiB | apply private MiB |\n"
            .to_owned();
    text += "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let mut places: Vec<&str> = rows.iter().filter_map(|row| Some(row.name.rsplit_once('/')?.0)).collect();
    places.dedup();
    for (series, x) in places.into_iter().filter_map(|place| place.split_once('/')) {
        text += &format!("| {series} | {x} |");
        for metric in METRICS {
            let name = format!("{series}/{x}/{metric}");
            let row = rows.iter().find(|row| row.name == name);
            let figure = row.map(|row| if row.unit == "bytes" { row.value / f64::from(1 << 20) } else { row.value });
            text += &figure.map_or(" |".to_owned(), |figure| format!(" {} |", significant(figure)));
        }
        text.push('\n');
    }
    text
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

fn mib_of(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
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
