//! Does the guest's agent answer? `guest-sync-delimited`, then `guest-ping` (QEMU Guest Agent Protocol Reference).

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::guest::Guest;
use super::probation::Asked;
use super::rundir::AGENT;
use crate::Error;
use crate::limits::{AGENT_LINE_BYTES_MAX, AGENT_SYNC_INTERVAL};

/// Stands before what is said, on both sides: whatever was left of an earlier conversation ends there.
const DELIMITER: u8 = 0xff;

pub(super) async fn ask(guest: &Guest) -> Asked {
    let failed = || Error::io("use", guest.run.path().join(AGENT));
    let socket = guest.run.connect(AGENT)?;
    let stream = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)).map_err(failed())?;
    let mut agent = Agent { stream: BufReader::new(stream) };
    let mut id = 0;
    loop {
        id += 1;
        let synced = tokio::time::timeout(AGENT_SYNC_INTERVAL, agent.sync(id)).await;
        match synced {
            Ok(synced) => break synced.map_err(failed())?,
            // It may have been cut short in the middle of something.
            Err(_) => continue,
        }
    }
    let answer = agent.ping().await.map_err(failed())?;
    Ok(match answer.get("return") {
        Some(_) => Ok(()),
        None => Err(format!("it answers {answer}")),
    })
}

struct Agent {
    stream: BufReader<UnixStream>,
}

impl Agent {
    /// Waits for the answer with this id.
    async fn sync(&mut self, id: u64) -> std::io::Result<()> {
        let mut question = vec![DELIMITER];
        question.extend(line("guest-sync-delimited", json!({ "id": id })));
        self.stream.get_mut().write_all(&question).await?;
        loop {
            let answer = self.read().await?;
            if answer.get("return").and_then(Value::as_u64) == Some(id) {
                return Ok(());
            }
        }
    }

    async fn ping(&mut self) -> std::io::Result<Value> {
        self.stream.get_mut().write_all(&line("guest-ping", json!({}))).await?;
        self.read().await
    }

    /// The next line; nothing of what can't be understood.
    async fn read(&mut self) -> std::io::Result<Value> {
        let mut text = Vec::new();
        if (&mut self.stream).take(AGENT_LINE_BYTES_MAX).read_until(b'\n', &mut text).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = text.rsplit(|byte| *byte == DELIMITER).next().unwrap_or_default();
        Ok(serde_json::from_slice(text).unwrap_or_default())
    }
}

fn line(command: &str, arguments: Value) -> Vec<u8> {
    let mut line = json!({ "execute": command, "arguments": arguments }).to_string().into_bytes();
    line.push(b'\n');
    line
}
