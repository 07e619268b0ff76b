#![expect(unsafe_code, reason = "the kernel reads buffers behind the compiler's back")]

use std::{fs::File, io, mem, os::fd::AsRawFd};

use io_uring::{IoUring, opcode, types::Fd};

use super::{Calls, Writer};
use crate::{
    Result,
    error::{Error, Object},
    limits::QUEUE_DEPTH,
};

/// `user_data` of the fsync; writes carry the number of their slot.
const FSYNC: u64 = u64::MAX;

/// Writes through io_uring, `QUEUE_DEPTH` in flight, into the page cache. `O_DIRECT` saves a third of the time of scattered writes on ext4, and loses several times
/// that when the image is read next, to be verified or run: it throws the large folios around each write out of the cache.
///
/// The ring owns each buffer from submission to completion, in `slots`. That is what makes the public face of this file safe: nobody else can free or change
/// bytes that the kernel still reads, and `drop` waits for all of them.
pub(super) struct Uring<'a> {
    ring: IoUring,
    file: &'a File,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    spare: Vec<Vec<u8>>,
    calls: Calls,
}

struct Slot {
    bytes: Vec<u8>,
    offset: u64,
    done: usize,
}

impl<'a> Uring<'a> {
    pub(super) fn new(file: &'a File) -> Result<Uring<'a>> {
        let depth = QUEUE_DEPTH as usize;
        Ok(Uring {
            ring: IoUring::new(QUEUE_DEPTH).map_err(Error::io("set up", Object::Ring))?,
            file,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            spare: Vec::new(),
            calls: Calls::default(),
        })
    }

    /// Queues what is left of a slot's buffer. It goes to the kernel with the next submission.
    fn queue(&mut self, number: usize) {
        let Some(Some(slot)) = self.slots.get(number) else {
            return;
        };
        let left = &slot.bytes[slot.done..];
        let write = opcode::Write::new(Fd(self.file.as_raw_fd()), left.as_ptr(), left.len() as u32)
            .offset(slot.offset + slot.done as u64)
            .build()
            .user_data(number as u64);
        // SAFETY: the bytes live in `slots` until their completion has been taken, the descriptor as long as `self`.
        unsafe { self.ring.submission().push(&write) }.expect("the queue has an entry for each slot");
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Submits what is queued and waits for at least one completion.
    fn wait(&mut self) -> Result<()> {
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Completions must be taken before more can be submitted.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => return Ok(()),
                Err(error) => return Err(Error::io("submit to", Object::Ring)(error)),
            }
        }
    }

    /// Takes all completions that are there. Short writes go on where they stopped.
    fn reap(&mut self) -> Result<()> {
        let completions: Vec<(u64, i32)> =
            self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        let mut outcome = Ok(());
        for (user_data, result) in completions {
            let number = user_data as usize;
            let Some(Some(slot)) = self.slots.get_mut(number) else {
                continue;
            };
            let error = match result {
                written @ 1.. => {
                    slot.done += written as usize;
                    None
                }
                0 => Some(io::ErrorKind::WriteZero.into()),
                refused => match io::Error::from_raw_os_error(-refused) {
                    again if again.kind() == io::ErrorKind::Interrupted => None,
                    again if again.kind() == io::ErrorKind::WouldBlock => None,
                    error => Some(error),
                },
            };
            let unfinished = slot.done < slot.bytes.len();
            if unfinished && error.is_none() {
                self.queue(number);
                continue;
            }
            if let Some(slot) = self.slots.get_mut(number).and_then(Option::take) {
                self.spare.push(slot.bytes);
            }
            self.free.push(number);
            if let (Some(error), true) = (error, outcome.is_ok()) {
                outcome = Err(Error::io("write", Object::Output)(error));
            }
        }
        outcome
    }
}

impl Writer for Uring<'_> {
    fn buffer(&mut self) -> Vec<u8> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        let number = loop {
            match self.free.pop() {
                Some(number) => break number,
                None => {
                    self.wait()?;
                    self.reap()?;
                }
            }
        };
        self.slots[number] = Some(Slot { bytes, offset, done: 0 });
        self.calls.writes += 1;
        self.queue(number);
        // Half a queue at a time keeps the kernel busy without a system call for each write. A refusal that lasts is met again by `wait`.
        if self.free.len() == self.slots.len() / 2 {
            let _ = self.ring.submit();
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Calls> {
        while self.in_flight() > 0 {
            self.wait()?;
            self.reap()?;
        }
        let fsync = opcode::Fsync::new(Fd(self.file.as_raw_fd())).build().user_data(FSYNC);
        // SAFETY: an fsync has no buffer; the descriptor lives as long as `self`.
        unsafe { self.ring.submission().push(&fsync) }.expect("nothing else is queued any more");
        self.calls.fsyncs += 1;
        let result = loop {
            self.wait()?;
            if let Some(entry) = self.ring.completion().next() {
                break entry.result();
            }
        };
        match result {
            0 => Ok(self.calls),
            refused => Err(Error::io("make durable", Object::Output)(io::Error::from_raw_os_error(-refused))),
        }
    }
}

impl Drop for Uring<'_> {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            if self.wait().is_err() {
                // The kernel may still read them: leaking is the one safe thing left.
                mem::forget(mem::take(&mut self.slots));
                return;
            }
            // An error of a write was told to whoever waited for it, or nobody waits any more.
            let _ = self.reap();
        }
    }
}
