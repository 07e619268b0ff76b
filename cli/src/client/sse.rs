//! Server-sent events (WHATWG HTML, 9.2): the data of each event, from bytes as they come.

use form_node::{ApiError, ErrorCode};

use super::limits::EVENT_BYTES_MAX;

/// Collects bytes into events. Holds at most one event and one line.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Parser {
    /// The events that end within these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ApiError> {
        let mut events = vec![];
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                events.extend(self.line_ended(line.strip_suffix(b"\r").unwrap_or(&line)));
            } else {
                self.line.push(*byte);
            }
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(ApiError::new(ErrorCode::Internal, "the node sent an event that is too long"));
            }
        }
        Ok(events)
    }

    fn line_ended(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return std::mem::take(&mut self.has_data).then_some(data);
        }
        // Comments keep the connection alive; event names, ids and retry times say nothing that the data does not.
        if let Some(data) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            self.has_data = true;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\n\nevent: progress\r\ndata: {\"a\":1}\r\n\r\nid: 7\ndata:x\ndata: y\n\nevent: empty\n\ndata: cut";

    #[test]
    fn events_do_not_depend_on_where_the_bytes_are_cut() {
        for step in 1..=STREAM.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = STREAM.chunks(step).flat_map(|bytes| parser.push(bytes).unwrap()).collect();
            assert_eq!(events, [b"{\"a\":1}".to_vec(), b"x\ny".to_vec()], "in steps of {step}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let chunk = [b'x'; 1 << 20];
        let refused = (0..5).map(|_| parser.push(&chunk).is_err()).collect::<Vec<_>>();
        assert_eq!(refused, [false, false, false, false, true]);
    }
}
