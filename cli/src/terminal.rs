//! The terminal's own ways, changed for as long as a guard lives.

use std::io::Stdin;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Puts the terminal back when dropped, on every path out.
pub(crate) struct TerminalMode {
    stdin: Stdin,
    before: Termios,
}

impl TerminalMode {
    /// Every key is passed on, Ctrl-C too. `None` when stdin is no terminal.
    pub(crate) fn raw() -> Option<Self> {
        Self::change(Termios::make_raw)
    }

    /// Ctrl-C is not shown as `^C`: it would push down what is painted, which then could not be painted over. `None`
    /// when stdin is no terminal.
    pub(crate) fn without_control_echo() -> Option<Self> {
        Self::change(|modes| modes.local_modes.remove(LocalModes::ECHOCTL))
    }

    fn change(how: impl FnOnce(&mut Termios)) -> Option<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut modes = before.clone();
        how(&mut modes);
        tcsetattr(&stdin, OptionalActions::Now, &modes).ok()?;
        Some(Self { stdin, before })
    }
}

impl Drop for TerminalMode {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to put back.
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}
