//! How a commit is shown while it runs. Every figure and every move comes from an event of the node.

mod bars;
mod board;
mod plain;
mod step;

use std::io::IsTerminal;

use form_node::api::types::AttemptEvent;

use crate::output::Output;

/// One of three ways; results follow when it is over.
pub(crate) enum Progress {
    /// An event a line, on stdout.
    Json(Output),
    /// A phase a line, on stderr.
    Plain(plain::Plain),
    /// A row for each instance, on stderr, painted over and over.
    Bars(bars::Bars),
}

impl Progress {
    /// The way that suits the caller. `source` is the name under which the attempt's own phases are shown.
    pub(crate) fn new(output: Output, source: &str, targets: &[String]) -> Self {
        if output.is_json() {
            Self::Json(output)
        } else if std::io::stderr().is_terminal() {
            Self::Bars(bars::Bars::new(source, targets))
        } else {
            Self::Plain(plain::Plain::new(source))
        }
    }

    pub(crate) fn event(&mut self, event: &AttemptEvent) {
        match self {
            Self::Json(output) => output.json_line(event),
            Self::Plain(plain) => {
                if let Some(line) = plain.line(event) {
                    Output::new(false).note(&line);
                }
            }
            Self::Bars(bars) => bars.event(event),
        }
    }

    /// A remark that is not the node's: the connection broke, say.
    pub(crate) fn note(&mut self, text: &str) {
        match self {
            Self::Json(output) => output.note(text),
            Self::Plain(_) => Output::new(false).note(text),
            Self::Bars(bars) => bars.note(text),
        }
    }

    /// Takes away what was painted.
    pub(crate) fn finish(&mut self) {
        if let Self::Bars(bars) = self {
            bars.finish();
        }
    }
}
