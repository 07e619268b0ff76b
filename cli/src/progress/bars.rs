//! The board, painted on a terminal over and over: once for each event, and in between, so that it is seen to live.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use form_node::api::types::AttemptEvent;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::board::Board;
use crate::terminal::TerminalMode;

/// Between two paintings.
const REPAINT: Duration = Duration::from_millis(120);

/// Where the terminal does not say how wide it is.
const COLUMNS: usize = 80;

/// What is on the screen.
pub(crate) struct Bars {
    board: Arc<Mutex<Board>>,
    /// Paints whole lines, all of them at once.
    painter: ProgressBar,
    _terminal: Option<TerminalMode>,
}

impl Bars {
    pub(super) fn new(source: &str, targets: &[String]) -> Self {
        let board = Arc::new(Mutex::new(Board::new(source, targets, Instant::now())));
        let painted = Arc::clone(&board);
        let lines = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let board = painted.lock().unwrap_or_else(PoisonError::into_inner);
            // Writing to a string does not fail.
            let _ = out.write_str(&board.lines(Instant::now(), columns()).join("\n"));
        };
        let style = ProgressStyle::with_template("{lines}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let painter = ProgressBar::no_length().with_style(style.with_key("lines", lines));
        let terminal = TerminalMode::without_control_echo();
        painter.enable_steady_tick(REPAINT);
        Self { board, painter, _terminal: terminal }
    }

    pub(super) fn event(&mut self, event: &AttemptEvent) {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).event(event, Instant::now());
        match event {
            AttemptEvent::Committed { snapshot_id } => self.note(&format!("committed {snapshot_id}")),
            AttemptEvent::Warning { target, message } => self.note(&format!("{target}: {message}")),
            AttemptEvent::Failed { error } => self.note(&format!("failed: {}; undoing", error.message)),
            _ => {}
        }
        self.painter.tick();
    }

    /// A line above.
    pub(super) fn note(&self, text: &str) {
        self.painter.println(text);
    }

    /// Leaves nothing of it on the screen.
    pub(super) fn finish(&self) {
        self.painter.finish_and_clear();
    }
}

/// One less than there are: a line that fills the last column makes some terminals begin another.
fn columns() -> usize {
    let width = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if width == 0 { COLUMNS - 1 } else { width - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template("{lines}").is_ok());
    }
}
