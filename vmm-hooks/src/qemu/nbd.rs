//! As much of an NBD client as it takes to read one dirty bitmap: the handshake, one metadata context, block status.
//!
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>. Numbers are big-endian. The other end is our own
//! QEMU; all the same no length of its is believed before it was held against a limit, and it gets a deadline.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::limits::{NBD_REPLY_BYTES_MAX, WRITTEN_RANGES_MAX};

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Flags of both ends: the newer handshake, and no padding behind it.
const NEWSTYLE_NO_ZEROES: u16 = 3;

const OPTION_GO: u32 = 7;
const OPTION_STRUCTURED_REPLY: u32 = 8;
const OPTION_SET_META_CONTEXT: u32 = 10;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_META_CONTEXT: u32 = 4;
/// In a reply to an option: it is refused.
const REPLY_IS_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;

const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_BLOCK_STATUS: u16 = 7;
const CHUNK_BLOCK_STATUS: u16 = 5;
const CHUNK_IS_LAST: u16 = 1;
/// The status flag of a dirty bitmap's context.
const IS_DIRTY: u32 = 1;
/// What is asked for at a time: less than the length field holds, and a multiple of every block size.
const ASKED_BYTES: u64 = 1 << 31;

/// Where the bitmap behind `context` is set, in all of an export: ascending, touching ranges merged.
pub(super) fn dirty(stream: UnixStream, export: &str, context: &str, timeout: Duration) -> io::Result<Vec<Range<u64>>> {
    let mut client = Client { stream, until: Instant::now() + timeout };
    client.greet()?;
    client.option(OPTION_STRUCTURED_REPLY, &[], |_, _| Ok(()))?;
    let mut id = None;
    client.option(OPTION_SET_META_CONTEXT, &meta_context(export, context), |kind, data| {
        if kind == REPLY_META_CONTEXT {
            let (number, name) = data.split_first_chunk().ok_or_else(|| wrong("a context without its number"))?;
            if name == context.as_bytes() {
                id = Some(u32::from_be_bytes(*number));
            }
        }
        Ok(())
    })?;
    let id = id.ok_or_else(|| wrong("the context is not offered"))?;
    let mut len_bytes = None;
    client.option(OPTION_GO, &[&name(export)[..], &[0, 0]].concat(), |kind, data| {
        if let (REPLY_INFO, Some((&[a, b], rest))) = (kind, data.split_first_chunk())
            && u16::from_be_bytes([a, b]) == INFO_EXPORT
        {
            len_bytes = rest.first_chunk().map(|len| u64::from_be_bytes(*len));
        }
        Ok(())
    })?;
    let len_bytes = len_bytes.ok_or_else(|| wrong("the export has no length"))?;

    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut position = 0;
    while position < len_bytes {
        let asked = (len_bytes - position).min(ASKED_BYTES);
        let mut end = position;
        for (len, flags) in client.block_status(position, asked, id)? {
            let start = end;
            // The last one may reach behind what was asked for.
            end = (end + u64::from(len)).min(len_bytes);
            if flags & IS_DIRTY == 0 {
                continue;
            }
            let full = ranges.len() == WRITTEN_RANGES_MAX;
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ if full => return Err(wrong("too many ranges")),
                _ => ranges.push(start..end),
            }
        }
        if end == position {
            return Err(wrong("it says nothing of some blocks"));
        }
        position = end;
    }
    // Politeness: the answer is complete.
    let _ = client.request(COMMAND_DISCONNECT, 0, 0);
    Ok(ranges)
}

struct Client {
    stream: UnixStream,
    until: Instant,
}

impl Client {
    fn greet(&mut self) -> io::Result<()> {
        let greeting: [u8; 18] = self.read()?;
        let flags = greeting.last_chunk().map_or(0, |flags| u16::from_be_bytes(*flags));
        if !greeting.starts_with(b"NBDMAGICIHAVEOPT") || flags & NEWSTYLE_NO_ZEROES != NEWSTYLE_NO_ZEROES {
            return Err(wrong("it does not greet as a server does"));
        }
        self.write(&u32::from(NEWSTYLE_NO_ZEROES).to_be_bytes())
    }

    /// Sends an option and hands each reply before the acknowledgement to `on_reply`.
    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        mut on_reply: impl FnMut(u32, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let len = u32::try_from(data.len()).map_err(io::Error::other)?;
        self.write(&[&OPTION_MAGIC[..], &option.to_be_bytes(), &len.to_be_bytes(), data].concat())?;
        loop {
            let magic = u64::from_be_bytes(self.read()?);
            let of = self.number()?;
            let kind = self.number()?;
            if magic != OPTION_REPLY_MAGIC || of != option {
                return Err(wrong("it answers what was not asked"));
            }
            let data = self.sized()?;
            match kind {
                REPLY_ACK => return Ok(()),
                kind if kind & REPLY_IS_ERROR != 0 => {
                    let said = String::from_utf8_lossy(&data).into_owned();
                    return Err(io::Error::other(format!("option {option} is refused ({kind:#x}): {said}")));
                }
                kind => on_reply(kind, &data)?,
            }
        }
    }

    /// Lengths and flags, from `offset` on.
    fn block_status(&mut self, offset: u64, len: u64, context: u32) -> io::Result<Vec<(u32, u32)>> {
        self.request(COMMAND_BLOCK_STATUS, offset, u32::try_from(len).map_err(io::Error::other)?)?;
        let mut found = Vec::new();
        loop {
            let (magic, [a, b, c, d]) = (self.number()?, self.read()?);
            let (flags, kind) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let cookie = u64::from_be_bytes(self.read()?);
            if magic != STRUCTURED_REPLY_MAGIC || cookie != offset {
                return Err(wrong("it answers what was not asked"));
            }
            let data = self.sized()?;
            if kind == CHUNK_BLOCK_STATUS {
                let (of, list) = data.split_first_chunk().ok_or_else(|| wrong("a status without its context"))?;
                let (pairs, rest) = list.as_chunks::<8>();
                if u32::from_be_bytes(*of) != context || !rest.is_empty() || !found.is_empty() {
                    return Err(wrong("a status that was not asked for"));
                }
                found.extend(pairs.iter().map(|&[a, b, c, d, e, f, g, h]| {
                    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
                }));
            } else if kind != 0 {
                return Err(io::Error::other(format!("it says error {kind:#x}")));
            }
            if flags & CHUNK_IS_LAST != 0 {
                return Ok(found);
            }
        }
    }

    /// The offset is the request's name too: there is one at a time.
    fn request(&mut self, command: u16, offset: u64, len: u32) -> io::Result<()> {
        let head = [&REQUEST_MAGIC.to_be_bytes()[..], &[0, 0], &command.to_be_bytes()].concat();
        self.write(&[&head[..], &offset.to_be_bytes(), &offset.to_be_bytes(), &len.to_be_bytes()].concat())
    }

    fn number(&mut self) -> io::Result<u32> {
        self.read().map(u32::from_be_bytes)
    }

    /// A length, and as many bytes.
    fn sized(&mut self) -> io::Result<Vec<u8>> {
        let len = self.number()?;
        if len > NBD_REPLY_BYTES_MAX {
            return Err(wrong("a reply that is too long"));
        }
        let mut data = vec![0; len as usize];
        self.fill(&mut data)?;
        Ok(data)
    }

    fn read<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut rest: &mut [u8]) -> io::Result<()> {
        while !rest.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(rest) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(taken) => rest = rest.get_mut(taken..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(bytes)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// Length and bytes.
fn name(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

fn meta_context(export: &str, context: &str) -> Vec<u8> {
    [&name(export)[..], &1u32.to_be_bytes(), &name(context)].concat()
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: &str = "disk0";
    const CONTEXT: &str = "qemu:dirty-bitmap:form-x";

    fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let len = u32::try_from(data.len()).unwrap();
        let numbers = [option.to_be_bytes(), kind.to_be_bytes(), len.to_be_bytes()].concat();
        [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &numbers, data].concat()
    }

    fn status(cookie: u64, pairs: &[(u32, u32)]) -> Vec<u8> {
        let pairs: Vec<u8> = pairs.iter().flat_map(|(l, f)| [l.to_be_bytes(), f.to_be_bytes()].concat()).collect();
        let data = [&2u32.to_be_bytes()[..], &pairs].concat();
        let head = [&STRUCTURED_REPLY_MAGIC.to_be_bytes()[..], &[0, 1, 0, 5], &cookie.to_be_bytes()].concat();
        [&head[..], &u32::try_from(data.len()).unwrap().to_be_bytes(), &data].concat()
    }

    /// All that a server says for an export of that length.
    fn server(len_bytes: u64) -> Vec<u8> {
        let export = [&[0, 0][..], &len_bytes.to_be_bytes(), &[0, 1]].concat();
        [
            b"NBDMAGICIHAVEOPT\x00\x03".to_vec(),
            option_reply(OPTION_STRUCTURED_REPLY, REPLY_ACK, &[]),
            option_reply(
                OPTION_SET_META_CONTEXT,
                REPLY_META_CONTEXT,
                &[&[0, 0, 0, 2][..], CONTEXT.as_bytes()].concat(),
            ),
            option_reply(OPTION_SET_META_CONTEXT, REPLY_ACK, &[]),
            option_reply(OPTION_GO, REPLY_INFO, &[0, 3, 0, 0, 0, 1]),
            option_reply(OPTION_GO, REPLY_INFO, &export),
            option_reply(OPTION_GO, REPLY_ACK, &[]),
        ]
        .concat()
    }

    fn ask(said: &[u8]) -> io::Result<Vec<Range<u64>>> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        dirty(ours, EXPORT, CONTEXT, Duration::from_secs(20))
    }

    #[test]
    fn ranges_are_put_together_over_several_answers() {
        let said = [
            server(1 << 20),
            status(0, &[(4096, 0), (8192, 1), (4096, 1), (4096, 0), (4096, 1)]),
            status(24576, &[(4096, 1), (4096, 0)]),
            status(32768, &[(u32::MAX, 1)]),
        ];
        assert_eq!(ask(&said.concat()).unwrap(), [4096..16384, 20480..28672, 32768..1 << 20]);
    }

    #[test]
    fn whatever_is_wrong_is_an_error() {
        let good = [server(1 << 20), status(0, &[(1 << 20, 0)])].concat();
        assert_eq!(ask(&good).unwrap(), []);
        for cut in 0..good.len() {
            assert!(ask(&good[..cut]).is_err(), "cut at {cut}");
        }
        let refused = option_reply(OPTION_STRUCTURED_REPLY, REPLY_IS_ERROR | 1, b"no");
        let long = [&STRUCTURED_REPLY_MAGIC.to_be_bytes()[..], &[0, 1, 0, 5], &[0; 8], &[0xff; 4]].concat();
        for said in [
            [b"NBDMAGICIHAVEOPT\x00\x03".to_vec(), refused].concat(),
            [server(1 << 20), status(7, &[(1 << 20, 0)])].concat(),
            [server(1 << 20), status(0, &[])].concat(),
            [server(1 << 20), status(0, &[(0, 1)])].concat(),
            [server(1 << 20), long].concat(),
        ] {
            assert!(ask(&said).is_err());
        }
    }

    #[test]
    fn a_server_that_says_nothing_has_a_deadline() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(dirty(ours, EXPORT, CONTEXT, Duration::from_millis(20)).is_err());
    }
}
