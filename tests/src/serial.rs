//! A guest's serial line: `form manage console` with pipes.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Context, Error, Form, Result};

/// One connection; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Serial {
    console: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    /// What has come and was not asked for yet.
    heard: Vec<u8>,
    reader: Option<JoinHandle<()>>,
}

impl Serial {
    pub(crate) fn connect(form: &Form, instance: &str) -> Result<Self> {
        let mut command = form.command(["manage", "console", "--name", instance]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut console = command.spawn().context(|| "run the console".into())?;
        let input = console.stdin.take();
        let mut stdout = console.stdout.take().ok_or_else(|| Error::new("the console has no stdout"))?;
        let (sender, output) = channel();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { console, input, output, heard: Vec::new(), reader: Some(reader) })
    }

    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or_else(|| Error::new("the console has no stdin"))?;
        input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n")).context(|| "write to the console".into())
    }

    /// Everything up to `mark`, without it; `None` when it did not come in time.
    pub(crate) fn hear_until(&mut self, mark: &str, patience: Duration) -> Result<Option<String>> {
        let until = Instant::now() + patience;
        loop {
            let place = self.heard.windows(mark.len()).position(|part| part == mark.as_bytes());
            if let Some(place) = place {
                let rest = self.heard.split_off(place + mark.len());
                self.heard.truncate(place);
                let text = String::from_utf8_lossy(&std::mem::replace(&mut self.heard, rest)).replace('\r', "");
                return Ok(Some(text));
            }
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.heard.extend(bytes),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::new("the console was closed")),
            }
        }
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        self.input = None;
        // Gone already is what is wanted.
        let _ = self.console.kill();
        let _ = self.console.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
