//! What a command says when it is done: some lines, a table, the stages; or one JSON object.

use std::fmt::Display;

use form_delta::{Share, Totals};
use serde_json::{Map, Value, json};

use super::stages::Stages;
use crate::output::Output;
use crate::table::Table;
use crate::units;

/// Lines of a name and what is said of it.
pub(super) struct Report {
    lines: Vec<String>,
    table: Option<String>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { lines: vec![], table: None }
    }

    pub(super) fn line(mut self, name: &str, text: impl Display) -> Self {
        self.lines.push(format!("{name:<8}{text}"));
        self
    }

    /// A row for each kind of recipe that occurs.
    pub(super) fn kinds(mut self, totals: &Totals) -> Self {
        let mut table = Table::new(["kind", ">image", ">delta"]);
        let mut row = |name: &str, share: Share| {
            let bytes = |count| units::in_column(units::bytes(count));
            table.row([name.to_owned(), bytes(share.image_bytes), bytes(share.wire_bytes)]);
        };
        for (name, share) in totals.by_kind() {
            if share != Share::default() {
                row(name, share);
            }
        }
        row("all", totals.sum());
        self.table = Some(table.to_string());
        self
    }

    /// Shows it. `json` is an object.
    pub(super) fn show(self, json: Value, stages: &Stages, output: Output) {
        let (json, text) = self.finish(json, stages);
        output.result(&json, text);
    }

    /// Shows it on stderr.
    pub(super) fn show_aside(self, json: Value, stages: &Stages, output: Output) {
        let (json, text) = self.finish(json, stages);
        output.result_aside(&json, text);
    }

    fn finish(self, json: Value, stages: &Stages) -> (Map<String, Value>, impl FnOnce() -> String) {
        let mut json = match json {
            Value::Object(json) => json,
            _ => Map::new(),
        };
        stages.add_to(&mut json);
        let lines = stages.lines();
        let text = move || {
            let table = self.table.map(|table| format!("\n{table}\n"));
            [Some(self.lines.join("\n")), table, Some(lines)].into_iter().flatten().collect::<Vec<_>>().join("\n")
        };
        (json, text)
    }
}

/// The same table for machines.
pub(super) fn kinds_json(totals: &Totals) -> Value {
    let kinds = totals.by_kind().into_iter().map(|(name, share)| {
        (name.to_owned(), json!({ "image_bytes": share.image_bytes, "wire_bytes": share.wire_bytes }))
    });
    Value::Object(kinds.collect())
}
