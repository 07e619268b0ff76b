//! The lines of QMP, and how one is put on a socket.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Deserialize;
use serde_json::{Value, json};

/// What a monitor says by itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// Such as `STOP`.
    pub(super) name: String,
    /// When it happened, by the host's wall clock.
    pub(super) at_ns: u64,
}

#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Greeting,
    Event(Event),
    Answer { id: u64, answer: Result<Value, String> },
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    timestamp: Option<Timestamp>,
    id: Option<u64>,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
}

/// Both are -1 where QEMU has no time.
#[derive(Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

pub(super) fn parse(line: &[u8]) -> Result<Message, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    match line {
        Line { greeting: Some(_), .. } => Ok(Message::Greeting),
        Line { event: Some(name), timestamp, .. } => {
            let at_ns = timestamp.and_then(|time| {
                let (seconds, micros) = (u64::try_from(time.seconds).ok()?, u64::try_from(time.microseconds).ok()?);
                seconds.checked_mul(1_000_000_000)?.checked_add(micros.checked_mul(1000)?)
            });
            Ok(Message::Event(Event { name, at_ns: at_ns.unwrap_or(0) }))
        }
        Line { id: Some(id), error: Some(refusal), .. } => Ok(Message::Answer { id, answer: Err(refusal.desc) }),
        Line { id: Some(id), returned, .. } => Ok(Message::Answer { id, answer: Ok(returned.unwrap_or_default()) }),
        Line { error: Some(refusal), .. } => Err(refusal.desc),
        _ => Err("neither greeting nor event nor answer".into()),
    }
}

pub(super) fn command(name: &str, arguments: Value, id: u64) -> Vec<u8> {
    let mut command = json!({ "execute": name, "id": id });
    if let (Value::Object(fields), false) = (&mut command, arguments.is_null()) {
        fields.insert("arguments".into(), arguments);
    }
    let mut line = command.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Sends what the socket takes at once, and how much that was. The descriptor travels with the first byte.
pub(super) fn send(socket: impl AsFd, line: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors
        && !control.push(SendAncillaryMessage::ScmRights(descriptors))
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(line)], &mut control, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(parse(br#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#), Ok(Message::Greeting));
        assert_eq!(
            parse(br#"{"timestamp": {"seconds": 2, "microseconds": 3}, "event": "STOP"}"#),
            Ok(Message::Event(Event { name: "STOP".into(), at_ns: 2_000_003_000 }))
        );
        assert_eq!(
            parse(br#"{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "RESUME", "data": {}}"#),
            Ok(Message::Event(Event { name: "RESUME".into(), at_ns: 0 }))
        );
        assert_eq!(
            parse(br#"{"return": {"status": "paused"}, "id": 7}"#),
            Ok(Message::Answer { id: 7, answer: Ok(json!({ "status": "paused" })) })
        );
        assert_eq!(
            parse(br#"{"id": 7, "error": {"class": "GenericError", "desc": "no"}}"#),
            Ok(Message::Answer { id: 7, answer: Err("no".into()) })
        );
        for bad in [&b"{}"[..], b"", b"[", br#"{"return": {}}"#, br#"{"error": {"class": "", "desc": "no"}}"#] {
            assert!(parse(bad).is_err());
        }
    }

    #[test]
    fn a_command_is_one_line() {
        let line = command("getfd", json!({ "fdname": "a\nb" }), 3);
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let back: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(back, json!({ "execute": "getfd", "arguments": { "fdname": "a\nb" }, "id": 3 }));
    }
}
