//! Types on a guest's serial console and reads the answers.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A guest under TCG on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Console {
    stream: UnixStream,
    read: Vec<u8>,
    commands: u32,
}

impl Console {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        Console { stream, read: Vec::new(), commands: 0 }
    }

    /// Waits for the shell of a guest that is booting.
    pub(crate) fn ready(&mut self) {
        self.until("READY");
    }

    /// Runs a command line; what it printed.
    pub(crate) fn run(&mut self, line: &str) -> String {
        self.commands += 1;
        let mark = format!("END-{}", self.commands);
        // Split by quotes, so that an echo of it would not be taken for the answer.
        let typed = format!("{line}\necho EN''D-{}\n", self.commands);
        self.stream.write_all(typed.as_bytes()).unwrap();
        self.until(&mark).replace('\r', "").trim().to_owned()
    }

    pub(crate) fn number(&mut self, line: &str) -> u64 {
        let answer = self.run(line);
        answer.parse().unwrap_or_else(|_| panic!("`{line}` answered {answer:?}"))
    }

    fn until(&mut self, mark: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&self.read).into_owned();
            if let Some((before, after)) = text.split_once(mark) {
                self.read = after.as_bytes().to_vec();
                return before.to_owned();
            }
            let late = Instant::now() >= end || text.contains("Kernel panic");
            assert!(!late, "no {mark} in {:?}", text.chars().take(2000).collect::<String>());
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => panic!("the console closed after {text:?}"),
                Ok(taken) => self.read.extend(&piece[..taken]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
