//! Which operation of a disk goes wrong, and how.

use fuser::Errno;

/// What goes wrong from the armed operation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// That one fails, as of a bad sector.
    Io,
    /// That one and all that need space fail, until the disk is mended.
    Full,
    /// That one and all that change anything fail, until the disk is mended.
    ReadOnly,
    /// Nothing is done any more, and nobody is answered, until the power is back.
    Off,
}

impl Fault {
    const ALL: [(Fault, &str); 4] =
        [(Fault::Io, "io"), (Fault::Full, "full"), (Fault::ReadOnly, "read-only"), (Fault::Off, "off")];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(fault, _)| *fault == self).expect("all").1
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == word).map(|(fault, _)| *fault)
    }
}

/// What is to become of an operation.
pub(crate) enum Verdict {
    Go,
    Fail(Errno),
    Hold,
}

/// Is told the operation that went wrong.
pub(crate) type OnHit = Box<dyn FnOnce(&str) + Send>;

#[derive(Default)]
pub(crate) struct Faults {
    /// Operations so far, since [`Faults::arm`].
    pub(crate) count: u64,
    armed: Option<(u64, Fault)>,
    held: Vec<Box<dyn FnOnce() + Send>>,
    on_hit: Option<OnHit>,
}

impl Faults {
    /// The operation of that number, from 1, goes wrong; none if there is no fault.
    pub(crate) fn arm(&mut self, armed: Option<(u64, Fault)>, on_hit: OnHit) {
        (self.count, self.armed, self.on_hit) = (0, armed, Some(on_hit));
    }

    pub(crate) fn hold(&mut self, answer: Box<dyn FnOnce() + Send>) {
        self.held.push(answer);
    }

    /// Whoever waits is told that it failed, and everything works again.
    pub(crate) fn mend(&mut self) {
        self.armed = None;
        self.held.drain(..).for_each(|answer| answer());
    }

    pub(crate) fn next(&mut self, name: &str) -> Verdict {
        self.count += 1;
        let Some((at, fault)) = self.armed.filter(|(at, _)| self.count >= *at) else { return Verdict::Go };
        let takes_space = ["write", "create", "mkdir", "symlink", "fallocate"].contains(&name);
        let verdict = match fault {
            Fault::Io if self.count > at => Verdict::Go,
            Fault::Full if !takes_space => Verdict::Go,
            Fault::ReadOnly if name.starts_with("fsync") => Verdict::Go,
            Fault::Io => Verdict::Fail(Errno::EIO),
            Fault::Full => Verdict::Fail(Errno::ENOSPC),
            Fault::ReadOnly => Verdict::Fail(Errno::EROFS),
            Fault::Off => Verdict::Hold,
        };
        if !matches!(verdict, Verdict::Go)
            && let Some(on_hit) = self.on_hit.take()
        {
            on_hit(name);
        }
        verdict
    }
}
