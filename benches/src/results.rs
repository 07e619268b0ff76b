//! What benchmarks leave behind, as JSON: one document of the comparison, and rows of everything else.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Result, process::Usage, tools::Role};

/// `compare.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    /// Where and when it was measured.
    pub machine: String,
    /// How often each update was run, slow tools apart.
    pub rounds: usize,
    /// In the order of the corpus.
    pub pairs: Vec<PairResult>,
}

/// One update with all tools.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PairResult {
    /// The new image's name.
    pub pair: String,
    /// What happened in the guest.
    pub title: String,
    /// Length of the image.
    pub image_bytes: u64,
    /// In blocks of 4 KiB.
    pub changed_bytes: u64,
    /// In the order in which they ran.
    pub tools: Vec<ToolResult>,
}

/// One update with one tool.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolResult {
    /// Its name.
    pub tool: String,
    /// Whose figures these are.
    pub role: Role,
    /// Whether the target ends up with the whole image.
    pub makes_image: bool,
    /// What both ends had from the update before: how long it took.
    pub setup_s: f64,
    /// And what it occupies on disk.
    pub setup_bytes: u64,
    /// Bytes on the wire; the median of all runs.
    pub wire_bytes: u64,
    /// Whether every run sent as many bytes, and said the same of them.
    pub repeats: bool,
    /// Medians over all runs.
    pub source: Usage,
    /// Medians over all runs; its wall time ends when the image is durable.
    pub target: Usage,
    /// The part of it that was an fsync after the tool had ended.
    pub sync_s: f64,
    /// Every run.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// What the source used.
    pub source: Usage,
    /// What the target used.
    pub target: Usage,
    /// The fsync after it.
    pub sync_s: f64,
    /// What the tool said itself.
    pub detail: Value,
}

impl Role {
    /// Whether its figures are what others are held against.
    pub fn is_peer(self) -> bool {
        self == Role::Peer
    }
}

impl Comparison {
    /// Reads a document.
    pub fn load(path: &Path) -> Result<Comparison> {
        Ok(serde_json::from_str(&fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?)?)
    }

    /// Writes it.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }
}

impl PairResult {
    /// What a tool did, if it ran.
    pub fn tool(&self, name: &str) -> Option<&ToolResult> {
        self.tools.iter().find(|tool| tool.tool == name)
    }
}

impl ToolResult {
    /// From the beginning at the source until the image is durable at the target.
    pub fn total_s(&self) -> f64 {
        self.source.wall_s + self.target.wall_s
    }
}

/// One figure of any other benchmark: a line of JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The benchmark.
    pub bench: String,
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
}

/// Rows of one benchmark, appended to the file that `FORM_BENCH_JSON` names, if it names one.
#[derive(Debug)]
pub struct Rows {
    bench: &'static str,
    out: Option<File>,
}

impl Rows {
    /// Opens the file.
    pub fn of(bench: &'static str) -> Result<Rows> {
        let path = std::env::var_os("FORM_BENCH_JSON");
        let out = path.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Rows { bench, out })
    }

    /// Opens that file, whatever the environment says. Of the rows of an earlier run those stay that `stays` says.
    pub fn in_file(bench: &'static str, path: &Path, stays: impl Fn(&Row) -> bool) -> Result<Rows> {
        let old = rows(path)?;
        let mut out = File::create(path)?;
        for row in old.iter().filter(|row| stays(row)) {
            writeln!(out, "{}", serde_json::to_string(row)?)?;
        }
        Ok(Rows { bench, out: Some(out) })
    }

    /// Adds a row.
    pub fn add(&mut self, name: &str, value: f64, unit: &str) -> Result<()> {
        let row = Row { bench: self.bench.to_owned(), name: name.to_owned(), value, unit: unit.to_owned() };
        if let Some(out) = &mut self.out {
            writeln!(out, "{}", serde_json::to_string(&row)?)?;
        }
        Ok(())
    }
}

/// Reads rows back; a file that is not there has none.
pub fn rows(path: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

/// The middle one, or between the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let of = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (of(values.len() / 2) + of(values.len().saturating_sub(1) / 2)) / 2.0
}
