//! What the driver feeds each machine, and what it answers, written down: `form_proto::replay` checks such a file.
//!
//! A node writes traces if its data directory has a directory `traces`; a file for each machine, appended to.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use form_proto::{Machine, Millis, trace_line, trace_start};

/// Where traces go; nowhere unless somebody made a place for them.
pub(crate) struct Traces {
    dir: Option<PathBuf>,
}

impl Traces {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir: Some(dir).filter(|dir| dir.is_dir()) }
    }

    /// A machine begins: its first outputs.
    pub(crate) fn start<M: Machine>(&mut self, name: &str, start: M::Start, now: Millis) -> (M, Vec<M::Output>) {
        let mut machine = M::start(start, now);
        let outputs = machine.drain();
        if self.dir.is_some() {
            self.write(name, &trace_start::<M>(&start, now, &outputs));
        }
        (machine, outputs)
    }

    /// A machine is told something: what it answers.
    pub(crate) fn feed<M: Machine>(
        &mut self,
        name: &str,
        machine: &mut M,
        input: M::Input,
        now: Millis,
    ) -> Vec<M::Output> {
        let outputs = machine.feed(input, now);
        if self.dir.is_some() {
            self.write(name, &trace_line::<M>(&input, now, &outputs));
        }
        outputs
    }

    fn write(&mut self, name: &str, text: &str) {
        let Some(dir) = &self.dir else { return };
        let path = dir.join(format!("{name}.trace"));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            tracing::warn!(path = %path.display(), %error, "no more traces are written");
            self.dir = None;
        }
    }
}
