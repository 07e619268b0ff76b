//! What makes one guest recognisable: five things, each in another place of a machine.

use crate::{Error, Guest, Result};

/// As read from a guest, by its own shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// A file on the disk, synced.
    pub synced: String,
    /// A file on the disk, not synced: it is in the page cache.
    pub unsynced: String,
    /// A file in a tmpfs.
    pub tmpfs: String,
    /// A variable of the shell.
    pub variable: String,
    /// Counted by a process that keeps it nowhere but in its memory, ten times a second at most.
    pub counter: u64,
}

/// The counter. It answers a signal through a FIFO, and forks nothing: what changes in the guest's memory is what was
/// changed. The FIFO is opened before the signal is sent: who asks waits for nobody who has left.
const COUNTER: &str = "mkfifo /tmp/never /tmp/answer && { (n=START; exec 9<>/tmp/never 8<>/tmp/answer; \
                       trap 'echo $n >&8' USR1; echo started >&8; while :; do read -rt 0.1 -u 9; n=$((n+1)); done) & } \
                       && counter=$! && exec 7<>/tmp/answer && read -r _ <&7";

impl Marks {
    /// Changes a guest: the four texts, and starts the counter at `start` if it does not run yet.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn make(guest: &mut Guest, text: &str, start: u64) -> Result<Self> {
        guest.run(&format!("echo '{text}, synced' > /root/synced; sync /root/synced"))?;
        guest.run(&format!("echo '{text}, not synced' > /root/unsynced"))?;
        guest.run(&format!("echo '{text}, in a tmpfs' > /tmp/mark"))?;
        guest.run(&format!("mark='{text}, a variable'"))?;
        if guest.run("echo ${counter:-none}")? == "none" {
            guest.run(&COUNTER.replace("START", &start.to_string()))?;
        }
        Self::read(guest)
    }

    /// Asks for all five.
    ///
    /// # Errors
    /// One is missing.
    pub fn read(guest: &mut Guest) -> Result<Self> {
        let counter = guest.run("kill -USR1 $counter && read -r n <&7 && echo $n")?;
        Ok(Self {
            synced: guest.run("cat /root/synced")?,
            unsynced: guest.run("cat /root/unsynced")?,
            tmpfs: guest.run("cat /tmp/mark")?,
            variable: guest.run("echo $mark")?,
            counter: counter.parse().map_err(|_| Error::new(format!("{}: counter is {counter:?}", guest.name())))?,
        })
    }

    /// Waits until the counter has moved.
    ///
    /// # Errors
    /// It stands still.
    pub fn counts_on(guest: &mut Guest) -> Result<()> {
        let first = Self::read(guest)?.counter;
        for _ in 0..60 {
            guest.run("sleep 0.5")?;
            if Self::read(guest)?.counter > first {
                return Ok(());
            }
        }
        Err(Error::new(format!("the counter of {} stands at {first}", guest.name())))
    }

    /// Whether these came from `before`: the same texts, and the counter has gone on from there. `most` is how far it can
    /// have come.
    ///
    /// # Errors
    /// What differs.
    pub fn continue_from(&self, before: &Self, most: u64) -> Result<()> {
        for (what, now, then) in [
            ("file on disk", &self.synced, &before.synced),
            ("file not synced", &self.unsynced, &before.unsynced),
            ("file in tmpfs", &self.tmpfs, &before.tmpfs),
            ("shell variable", &self.variable, &before.variable),
        ] {
            if now != then {
                return Err(Error::new(format!("{what}: {now:?}, not {then:?}")));
            }
        }
        if self.counter < before.counter || self.counter - before.counter > most {
            return Err(Error::new(format!("the counter was {}, and is {}", before.counter, self.counter)));
        }
        Ok(())
    }
}
