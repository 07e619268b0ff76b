//! A keeper's part of machines of files: it runs the commands that pause and resume one during a capture.
//!
//! It, and not the daemon, because a command outlives whoever started it: a resume by somebody else could overtake the
//! pause of a daemon that was killed meanwhile.

use std::time::Duration;

use super::record::{Record, State};
use crate::command::Commander;
use crate::keeper::{Charge, Kind, Order, Ward, no_such_order, say};
use crate::limits::{RELEASE_RETRY, RELEASE_TRIES};
use crate::{Error, Result};

/// A machine of files, to its keeper.
pub(crate) struct Kept {
    commander: Commander,
    record: Record,
    pause: Vec<String>,
    resume: Vec<String>,
    paused: bool,
    tries: u32,
}

impl Kept {
    pub(crate) fn new(charge: &Charge) -> Result<Self> {
        let Kind::Files { uuid, programs, pause, resume, timeout_s } = &charge.kind else {
            return Err(no_such_order(&charge.name));
        };
        let commander = Commander {
            name: charge.name.clone(),
            dir: charge.dir.clone(),
            programs: programs.clone(),
            timeout: Duration::from_secs((*timeout_s).into()),
        };
        let record = Record::new(&charge.dir, uuid);
        Ok(Kept { commander, record, pause: pause.clone(), resume: resume.clone(), paused: false, tries: 0 })
    }

    fn resume(&mut self) -> Result<()> {
        self.commander.run("resume", &self.resume)?;
        self.record.write(State::Running)?;
        self.paused = false;
        Ok(())
    }
}

impl Ward for Kept {
    fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Pause => {
                // Whatever becomes of it: it may come half way.
                self.paused = true;
                self.commander.run("pause", &self.pause)
            }
            Order::Resume => self.resume(),
            Order::Resumed => Err(no_such_order(&self.commander.name)),
        }
    }

    fn release(&mut self) -> bool {
        if !self.paused {
            return true;
        }
        if self.tries > 0 {
            std::thread::sleep(RELEASE_RETRY);
        }
        self.tries += 1;
        match self.resume() {
            Ok(()) => {
                say(&format!("{} goes on", self.commander.name));
                true
            }
            Err(error) if self.tries < RELEASE_TRIES => {
                say(&format!("{} does not go on yet: {}", self.commander.name, cause(&error)));
                false
            }
            Err(error) => {
                say(&format!("{} is STILL PAUSED, given up: {}", self.commander.name, cause(&error)));
                true
            }
        }
    }
}

fn cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
