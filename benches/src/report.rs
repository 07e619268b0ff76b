//! The generated parts of docs/performance.md: between `<!-- figures: NAME -->` and `<!-- end -->`.

use std::{fs, path::Path};

use crate::{
    Result, bounds, plot,
    results::{self, Comparison, Row},
    settings::Settings,
    table,
};

/// Rows of all benchmarks but the comparison: those that `make bench`, `make bench-growth` and `make bench-pause` left.
pub fn rows(settings: &Settings) -> Result<Vec<Row>> {
    let files = ["rows.jsonl", "growth.jsonl", "targets.jsonl", "pause.jsonl"];
    Ok(files.map(|file| results::rows(&settings.dir.join(file))).into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// Writes tables and plots of whatever was measured into the directory `docs`; the rest stays as it is.
pub fn write(settings: &Settings, docs: &Path) -> Result<()> {
    let path = docs.join("performance.md");
    let mut text = fs::read_to_string(&path)?;
    let rows = rows(settings)?;
    if let Ok(comparison) = Comparison::load(&settings.dir.join("compare.json")) {
        let machine = format!("{}; {} rounds, medians.\n", comparison.machine, comparison.rounds);
        put(&mut text, "machine", &machine)?;
        put(&mut text, "bounds", &table::bounds(&bounds::lines(&comparison, &rows)))?;
        put(&mut text, "compare", &table::comparison(&comparison))?;
        plot::comparison(&comparison, docs)?;
    }
    type Table = fn(&[Row]) -> String;
    type Plot = fn(&[Row], &Path) -> Result<()>;
    let sections: [(&str, &[&str], Table, Plot); 4] = [
        ("micro", &["apply", "micro", "quic"], table::rows, |_, _| Ok(())),
        ("growth", &["growth"], table::growth, plot::growth),
        ("targets", &["targets"], table::targets, plot::targets),
        ("pause", &["pause"], table::pause, plot::pause),
    ];
    for (name, benches, table, plot) in sections {
        let here: Vec<Row> = rows.iter().filter(|row| benches.contains(&row.bench.as_str())).cloned().collect();
        if !here.is_empty() {
            put(&mut text, name, &table(&here))?;
            plot(&here, docs)?;
        }
    }
    Ok(fs::write(path, text)?)
}

fn put(text: &mut String, name: &str, figures: &str) -> Result<()> {
    let begin = format!("<!-- figures: {name} -->\n");
    let start = text.find(&begin).ok_or_else(|| format!("performance.md has no figures: {name}"))? + begin.len();
    let end = start + text[start..].find("<!-- end -->").ok_or("figures without an end")?;
    text.replace_range(start..end, &format!("\n{figures}\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let mut text = "a\n<!-- figures: x -->\nold\n<!-- end -->\nb <!-- end -->\n".to_owned();
        put(&mut text, "x", "new").unwrap();
        assert_eq!(text, "a\n<!-- figures: x -->\n\nnew\n<!-- end -->\nb <!-- end -->\n");
        assert!(put(&mut text, "y", "").is_err());
    }
}
