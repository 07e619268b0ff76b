//! A bar on a terminal for what takes long; nothing anywhere else.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// How far the work is, in bytes of the image.
pub(super) struct Meter(ProgressBar);

impl Meter {
    pub(super) fn new(what: &'static str, output: Output) -> Self {
        if output.is_json() || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg}  {bar:30}  {bytes} of {total_bytes}");
        Self(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(what))
    }

    pub(super) fn show(&self, done_bytes: u64, total_bytes: u64) {
        self.0.set_length(total_bytes);
        self.0.set_position(done_bytes);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
