//! A terminal that passes on every key, for as long as the guard lives.

use std::io::Stdin;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Puts the terminal back when dropped, on every path out.
pub(super) struct RawTerminal {
    stdin: Stdin,
    before: Termios,
}

impl RawTerminal {
    /// `None` when stdin is no terminal.
    pub(super) fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { stdin, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to put back.
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}
