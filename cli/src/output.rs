//! Where results and errors go: text for people, JSON for machines.

use std::io::Write;
use std::process::ExitCode;

use form_node::{ApiError, ErrorCode};
use serde::Serialize;

use crate::exit;

/// How this command answers.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// The command's result, on stdout.
    pub(crate) fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json { self.json_line(value) } else { stdout_line(&text()) }
    }

    /// The same on stderr, for a command whose stdout is taken.
    pub(crate) fn result_aside(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let json = || serde_json::to_string(value).unwrap_or_else(|error| error.to_string());
        stderr_line(&if self.json { json() } else { text() });
    }

    /// One JSON object on a line of stdout.
    pub(crate) fn json_line(self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => stdout_line(&line),
            Err(error) => stderr_line(&format!("error: the result can't be written as JSON: {error}")),
        }
    }

    /// A remark on stderr.
    pub(crate) fn note(self, text: &str) {
        if self.json {
            stderr_line(&serde_json::json!({ "note": text }).to_string());
        } else {
            stderr_line(text);
        }
    }

    /// Says on stderr what went wrong; gives the process's exit code.
    pub(crate) fn failure(self, error: &ApiError) -> ExitCode {
        if self.json {
            stderr_line(&serde_json::to_string(error).unwrap_or_else(|_| error.to_string()));
        } else {
            stderr_line(&format!("error: {}", error.message));
            if let Some(cause) = &error.cause {
                stderr_line(&format!("cause: {cause}"));
            }
            if let Some(remedy) = &error.remedy {
                stderr_line(&format!("fix: {remedy}"));
            }
        }
        ExitCode::from(exit::code(error.code))
    }
}

/// What clap has to say: help and version, or that the words make no command.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let asked_for = !error.use_stderr();
    if !asked_for && std::env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        // After the first paragraph comes usage, for the eye.
        let message: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let message = message.join(" ").trim_start_matches("error: ").to_owned();
        let error = ApiError::new(ErrorCode::BadRequest, message).remedy("see --help");
        return Output::new(true).failure(&error);
    }
    // Nothing is left to report to when neither stream can be written.
    let _ = error.print();
    if asked_for { ExitCode::SUCCESS } else { ExitCode::from(exit::code(ErrorCode::BadRequest)) }
}

// A reader that went away (`form … | head`) is no error of ours: the line is dropped.
fn stdout_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn stderr_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
