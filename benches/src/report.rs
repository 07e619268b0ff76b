//! The generated parts of docs/performance.md: between `<!-- figures: NAME -->` and `<!-- end -->`.

use std::{fs, path::Path};

use crate::{
    Result, bounds, plot,
    results::{self, Comparison, Row},
    settings::Settings,
    table,
};

/// Rows of all benchmarks but the comparison: those that `make bench` and `make bench-growth` left.
pub fn rows(settings: &Settings) -> Result<Vec<Row>> {
    Ok([results::rows(&settings.dir.join("rows.jsonl"))?, results::rows(&settings.dir.join("growth.jsonl"))?].concat())
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
    let (growth, micro): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.bench == "growth");
    if !micro.is_empty() {
        put(&mut text, "micro", &table::rows(&micro))?;
    }
    if !growth.is_empty() {
        plot::growth(&growth, docs)?;
        put(&mut text, "growth", &table::growth(&growth))?;
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
