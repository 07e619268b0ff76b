//! The capture: the guest stands still, its device state is written, the caller copies, the guest goes on.
//!
//! It runs as a task of its own, so that a caller who gives up does not stop it half way: whoever copies during the pause
//! is still copying then, and the guest may only go on once that has ended.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::bitmaps;
use super::guest::Guest;
use super::qmp_wire::Event;
use crate::keeper::{Charge, Keeper, Keeping, Kind};
use crate::limits::PAUSE_WARNING;
use crate::{Captured, Cuts, Error, Result, WhilePaused, Written};

pub(super) async fn capture(
    guest: Arc<Guest>,
    keeping: Keeping,
    state_out: File,
    cuts: Cuts,
    while_paused: WhilePaused,
) -> Result<Captured> {
    let name = guest.name.clone();
    let task = tokio::spawn(run(guest, keeping, state_out, cuts, while_paused));
    task.await.unwrap_or(Err(Error::Panicked { name }))
}

async fn run(
    guest: Arc<Guest>,
    keeping: Keeping,
    state_out: File,
    cuts: Cuts,
    while_paused: WhilePaused,
) -> Result<Captured> {
    let _turn = guest.turn.lock().await;
    let status = guest.status().await?;
    if status != "running" {
        return Err(guest.wrong_state("capture", status));
    }
    guest.leave_ram_out().await?;

    let mut pause = Pause { events: guest.qmp.events(), stopped_ns: None, resumed_ns: None };
    // From here on the guest goes on whatever becomes of this task, or of its process.
    let keeper = keep(&guest, keeping).await?;
    let begin = Instant::now();
    let mut frozen = freeze(&guest, state_out, &cuts, while_paused).await;
    if pause.was_resumed() {
        frozen = Err(Error::Voided { name: guest.name.clone() });
    }
    let resumed = guest.cont().await;
    let measured = begin.elapsed();

    if let Err(source) = resumed {
        // The keeper is not dismissed: it goes on trying.
        tracing::error!(machine = guest.name, %source, "STILL PAUSED after its capture");
        let capture = frozen.err().map(Box::new);
        return Err(Error::NotResumed { name: guest.name.clone(), capture, source: Box::new(source) });
    }
    // When this is done, nobody resumes a guest any more that something else has paused.
    let _ = tokio::task::spawn_blocking(move || keeper.dismiss()).await;
    let times = frozen?;
    Ok(Captured { pause_ns: pause.ns().unwrap_or(nanos(measured)), ..times })
}

/// Puts a keeper beside the guest.
async fn keep(guest: &Guest, keeping: Keeping) -> Result<Keeper> {
    let bound_ms = u64::try_from(keeping.pause_max.as_millis()).unwrap_or(u64::MAX);
    let charge = Charge { name: guest.name.clone(), dir: guest.run.path(), bound_ms, kind: Kind::Qemu };
    let (log, name) = (guest.run.open_log()?, guest.name.clone());
    let started = tokio::task::spawn_blocking(move || Keeper::start(keeping.command.as_ref(), &charge, log)).await;
    started.unwrap_or(Err(Error::Panicked { name }))
}

/// Everything between the guest's stop and its going on.
async fn freeze(guest: &Arc<Guest>, state_out: File, cuts: &Cuts, while_paused: WhilePaused) -> Result<Captured> {
    let begin = Instant::now();
    guest.stop().await?;
    // The disks are drained: what was written until now is in, and nothing more comes.
    let written = bitmaps::cut(guest, cuts).await;
    let stopped = Instant::now();
    guest.save(&state_out).await?;
    drop(state_out);
    let saved = Instant::now();
    copy(guest, written, while_paused).await?;
    Ok(Captured {
        pause_ns: 0,
        stop_ns: nanos(stopped - begin),
        state_ns: nanos(saved - stopped),
        copy_ns: nanos(saved.elapsed()),
    })
}

async fn copy(guest: &Guest, written: Written, while_paused: WhilePaused) -> Result<()> {
    let begin = Instant::now();
    let mut copying = tokio::task::spawn_blocking(move || while_paused(written));
    loop {
        // It can't be interrupted, only complained about.
        match tokio::time::timeout(PAUSE_WARNING, &mut copying).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(source))) => return Err(Error::WhilePaused { name: guest.name.clone(), source }),
            Ok(Err(_)) => return Err(Error::Panicked { name: guest.name.clone() }),
            Err(_) => tracing::warn!(machine = guest.name, paused_s = begin.elapsed().as_secs(), "still copying"),
        }
    }
}

/// The pause by the monitor's own events.
struct Pause {
    events: Receiver<Event>,
    stopped_ns: Option<u64>,
    resumed_ns: Option<u64>,
}

impl Pause {
    /// Takes in what has happened so far. The monitor sends a command's events before its answer.
    fn update(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(Event { name, at_ns }) => match name.as_str() {
                    "STOP" => self.stopped_ns = self.stopped_ns.or(Some(at_ns)),
                    "RESUME" => self.resumed_ns = Some(at_ns),
                    _ => {}
                },
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn was_resumed(&mut self) -> bool {
        self.update();
        self.resumed_ns.is_some()
    }

    /// `None` if an event is missing, or the wall clock was set back meanwhile.
    fn ns(&mut self) -> Option<u64> {
        self.update();
        self.resumed_ns?.checked_sub(self.stopped_ns?).filter(|&ns| ns > 0)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;

    use super::*;

    fn pause(events: &[(&str, u64)]) -> Pause {
        let sender = broadcast::Sender::new(8);
        let receiver = sender.subscribe();
        for &(name, at_ns) in events {
            sender.send(Event { name: name.into(), at_ns }).unwrap();
        }
        Pause { events: receiver, stopped_ns: None, resumed_ns: None }
    }

    #[test]
    fn the_pause_is_from_the_first_stop_to_the_last_resume() {
        assert_eq!(pause(&[("STOP", 5), ("MIGRATION", 6), ("RESUME", 9)]).ns(), Some(4));
        assert_eq!(pause(&[("STOP", 5), ("RESUME", 6), ("STOP", 7), ("RESUME", 9)]).ns(), Some(4));
        assert_eq!(pause(&[("STOP", 5), ("RESUME", 5)]).ns(), None);
        assert_eq!(pause(&[("STOP", 5), ("RESUME", 3)]).ns(), None, "the clock was set back");
        assert_eq!(pause(&[("RESUME", 3)]).ns(), None);
    }

    #[test]
    fn only_a_resume_voids() {
        assert!(!pause(&[("STOP", 5), ("MIGRATION", 6)]).was_resumed());
        assert!(pause(&[("STOP", 5), ("RESUME", 6)]).was_resumed());
    }
}
