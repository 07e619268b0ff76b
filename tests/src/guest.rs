//! A shell in a guest, over its serial console.

use std::time::{Duration, Instant};

use crate::serial::Serial;
use crate::{Error, Form, Result};

/// Booting takes seconds; longer on a machine that does much else.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);
/// For one command.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries to wake the shell.
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// The shell of tests/guest/make.sh: it does not echo and has no prompt.
#[derive(Debug)]
pub struct Guest {
    form: Form,
    name: String,
    serial: Option<Serial>,
    /// Makes the mark after each command unique.
    number: u64,
}

impl Guest {
    /// Not connected yet. `form` asks the node that hosts the instance, with a key that may use its console.
    pub fn new(form: Form, name: &str) -> Self {
        Self { form, name: name.to_owned(), serial: None, number: 0 }
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connects, anew if need be, and waits until the shell answers: after a start, and after the instance became
    /// another VM.
    ///
    /// # Errors
    /// It does not answer.
    pub fn attach(&mut self) -> Result<()> {
        let until = Instant::now() + BOOT_PATIENCE;
        let mut last = Error::new("it was not asked");
        while Instant::now() < until {
            match self.try_attach() {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            self.serial = None;
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(Error::new(format!("the shell of {} does not answer: {last}", self.name)))
    }

    fn try_attach(&mut self) -> Result<()> {
        self.serial = None;
        let mut serial = Serial::connect(&self.form, &self.name)?;
        // What is typed before the shell reads is read when it does, in order: the answer to the last question comes last.
        for _ in 0..20 {
            self.number += 1;
            let mark = mark(self.number);
            serial.say(&question("", self.number))?;
            if serial.hear_until(&mark, PING_PATIENCE)?.is_some()
                && serial.hear_until("\n", COMMAND_PATIENCE)?.is_some()
            {
                self.serial = Some(serial);
                return Ok(());
            }
        }
        Err(Error::new("no answer"))
    }

    /// Runs a line of shell; what it prints, without the last newline. Requires success.
    ///
    /// # Errors
    /// It failed, or did not end.
    pub fn run(&mut self, line: &str) -> Result<String> {
        self.number += 1;
        let number = self.number;
        let name = self.name.clone();
        let serial = self.serial.as_mut().ok_or_else(|| Error::new(format!("{name} is not attached")))?;
        serial.say(&question(line, number))?;
        let late = || Error::new(format!("{name}: no end of `{line}`"));
        let said = serial.hear_until(&mark(number), COMMAND_PATIENCE)?.ok_or_else(late)?;
        let status = serial.hear_until("\n", COMMAND_PATIENCE)?.ok_or_else(late)?;
        let said = said.trim_end_matches('\n').to_owned();
        if status.trim() != "0" {
            return Err(Error::new(format!("{name}: `{line}` ended with {}: {said}", status.trim())));
        }
        Ok(said)
    }

    /// Which boot of a kernel this is.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn boot_id(&mut self) -> Result<String> {
        self.run("cat /proc/sys/kernel/random/boot_id")
    }
}

/// The line, and a mark with its exit code. The mark is not itself in what is typed: an echo can't be taken for it.
fn question(line: &str, number: u64) -> String {
    format!("{line}\nprintf 'END-%s:%s\\n' {number} $?")
}

fn mark(number: u64) -> String {
    format!("END-{number}:")
}
