//! The keeper's own process.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};

use super::wire::{Answer, Charge, Failure, Kind, Lines, Next, Order, is_readable, line};
use crate::limits::{KEEPER_START_TIMEOUT, RELEASE_INTERVAL};
use crate::{Error, files, qemu};

type Ended<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A guest, as its keeper has it.
pub(crate) trait Ward {
    /// Carries out an order that is answered.
    fn obey(&mut self, order: Order) -> crate::Result<()>;

    /// One try to let the guest go on. True when there is nothing more to try.
    fn release(&mut self) -> bool;
}

/// Keeps one guest: the whole life of a process that [`KeeperCommand`](super::KeeperCommand) starts. Its charge and its
/// orders come on stdin, its answers go to stdout, and what it did that somebody should know of to stderr.
///
/// It ends when its daemon says so, or once the guest of a daemon that is gone runs, or is gone too.
pub fn run() -> ExitCode {
    match keep() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("not ready: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// For the log of the guest's own process. Nobody is there to be told that it can't be written.
pub(crate) fn say(what: &str) {
    let _ = writeln!(io::stderr(), "form keeper: {what}");
}

fn keep() -> Ended<()> {
    // What ends the daemon's whole group or terminal leaves this alone. A leader is in a session of its own already.
    let _ = rustix::process::setsid();
    ignore_signals()?;
    let mut orders = Lines::new(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let Next::Line(charge) = orders.next::<Charge>(Instant::now() + KEEPER_START_TIMEOUT)? else {
        return Err("no charge came".into());
    };
    let _lock = lock(&charge)?;
    let bound = Duration::from_millis(charge.bound_ms);
    match &charge.kind {
        Kind::Qemu => watch(&mut qemu::Kept::new(&charge)?, &mut orders, bound),
        Kind::Files { .. } => watch(&mut files::Kept::new(&charge)?, &mut orders, bound),
    }
}

/// A polite request to end is not for whoever has to see to it that somebody else's guest runs.
fn ignore_signals() -> Ended<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    // Each takes the place of the signal's own effect for as long as the process lives.
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    Ok(())
}

/// Says that a keeper is there, until the process ends.
fn lock(charge: &Charge) -> Ended<File> {
    let dir = File::open(&charge.dir)?;
    let until = Instant::now() + KEEPER_START_TIMEOUT;
    loop {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(dir),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            Err(Errno::WOULDBLOCK) => return Err("another keeper is there".into()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn watch(ward: &mut dyn Ward, orders: &mut Lines, bound: Duration) -> Ended<()> {
    // Who is not told that a keeper is ready pauses nothing: what may be paused now is none of its business.
    if is_readable(orders, Instant::now())? {
        return Err("its daemon is gone".into());
    }
    tell(&Answer::Ready)?;
    let until = Instant::now() + bound;
    let mut late = false;
    loop {
        match orders.next(if late { Instant::now() + RELEASE_INTERVAL } else { until }) {
            Ok(Next::Line(Order::Resumed)) => return Ok(()),
            // What it is let go of once is not to be taken for frozen.
            Ok(Next::Line(_)) if late => answer(&Answer::Voided)?,
            Ok(Next::Line(order)) => answer(&match ward.obey(order) {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Failed(Failure::of(error)),
            })?,
            Ok(Next::Late) => {
                if !late {
                    say(&format!("paused for {} ms: it goes on, and the capture is void", bound.as_millis()));
                }
                late = true;
                // Its daemon may be about to pause it once more: until that says that it is over, this goes on.
                ward.release();
            }
            Ok(Next::End) => break,
            Err(error) => {
                say(&format!("orders that are none: {error}"));
                break;
            }
        }
    }
    while !ward.release() {
        std::thread::sleep(RELEASE_INTERVAL);
    }
    Ok(())
}

/// A daemon that is gone does not hear it; that is found out from its orders.
fn answer(answer: &Answer) -> io::Result<()> {
    match tell(answer) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn tell(answer: &Answer) -> io::Result<()> {
    let line = line(answer)?;
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush())
}

/// An order that a kind of guest has no use for.
pub(crate) fn no_such_order(name: &str) -> Error {
    Error::Keeper { name: name.into(), problem: "it has no such order".into() }
}
