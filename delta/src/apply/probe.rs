use std::{fmt, fs::File, os::unix::fs::FileExt};

use rustix::fs::{MemfdFlags, memfd_create};

use super::{Writer, uring::Uring};
use crate::{
    Result,
    error::{Error, Object},
};

/// What carries out the writes of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// io_uring: many writes in flight.
    Uring,
    /// One `pwrite` after the other.
    Pwrite,
}

impl Engine {
    /// The fastest engine that works here, and, where that is not io_uring, why not. A real write and a real fsync go through the ring: kernels and
    /// containers that refuse io_uring do so at different calls.
    pub fn probe() -> (Engine, Option<String>) {
        match try_ring() {
            Ok(()) => (Engine::Uring, None),
            Err(error) => {
                let mut reason = error.to_string();
                if let Some(source) = std::error::Error::source(&error) {
                    reason = format!("{reason}: {source}");
                }
                (Engine::Pwrite, Some(reason))
            }
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Uring => "io_uring",
            Engine::Pwrite => "pwrite",
        })
    }
}

fn try_ring() -> Result<()> {
    const PROBE: &[u8] = b"form";
    let file = memfd_create("form-probe", MemfdFlags::CLOEXEC);
    let file = File::from(file.map_err(Error::io("create a file to probe", Object::Ring))?);
    let mut ring = Uring::new(&file)?;
    ring.write(0, PROBE.to_vec())?;
    ring.finish()?;
    let mut back = [0; PROBE.len()];
    file.read_exact_at(&mut back, 0).map_err(Error::io("read back what was written by", Object::Ring))?;
    if back != PROBE {
        return Err(Error::damaged(Object::Ring, 0, "a write that it reported done is not there"));
    }
    Ok(())
}
