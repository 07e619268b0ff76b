//! What a command has half done, so that Ctrl-C leaves nothing of it, nor an image that can't be read any more.

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use form_node::{ApiError, ErrorCode};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Stop;
use crate::lost_image::LostImage;
use crate::output::Output;

/// The files that must not outlive the command. The work and the signals share it: whoever holds the lock knows that no
/// file comes or goes meanwhile.
#[derive(Clone)]
pub(super) struct Workplace(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    interrupted: bool,
    temporary: Option<PathBuf>,
    dirty: Option<PathBuf>,
}

impl Workplace {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a file that goes when the command is interrupted.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.state();
        state.still_wanted()?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        state.temporary = Some(path.to_owned());
        Ok(file)
    }

    /// Removes the file that was made, if it is still there.
    pub(super) fn discard(&self) {
        if let Some(path) = self.state().temporary.take() {
            // What can't be removed now could not be removed by anybody.
            let _ = remove_file(path);
        }
    }

    /// From now on this file of the user's is neither what it was nor what it will be.
    pub(super) fn begin_changing(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.still_wanted()?;
        state.dirty = Some(path.to_owned());
        Ok(())
    }

    /// Runs the last step, after which a file is whole under its name.
    pub(super) fn publish(&self, step: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        state.still_wanted()?;
        step()?;
        *state = State::default();
        Ok(())
    }

    /// The file that was being changed, if one was.
    pub(super) fn dirty(&self) -> Option<PathBuf> {
        self.state().dirty.clone()
    }

    fn interrupt(&self) {
        self.state().interrupted = true;
        self.discard();
    }
}

impl State {
    fn still_wanted(&self) -> io::Result<()> {
        if self.interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// What a user must know of a file that was left half changed.
fn dirty_remark(path: &Path) -> String {
    format!(
        "{} was being changed: it is neither the base nor the new image; the same command again sees to that first",
        path.display()
    )
}

/// An error that left a file half changed says so, behind what there is to do about it.
pub(super) fn left_dirty(error: ApiError, path: &Path) -> ApiError {
    let remark = dirty_remark(path);
    let remedy = error.remedy.as_ref().map_or_else(|| remark.clone(), |remedy| format!("{remedy}; {remark}"));
    error.remedy(remedy)
}

/// Runs work that blocks, on a thread of its own, until it is done, the command is told to end, or an image is lost to it.
pub(super) async fn until_interrupted(
    work: impl FnOnce() -> Result<(), Stop> + Send + 'static,
    workplace: &Workplace,
    output: Output,
) -> Result<(), Stop> {
    let listen = |kind| {
        signal(kind).map_err(|error| ApiError::new(ErrorCode::Internal, "signals can't be listened for").cause(error))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut lost = LostImage::listen()?;
    let working = tokio::task::spawn_blocking(work);
    let is_lost = tokio::select! {
        done = working => match done {
            Ok(done) => return done,
            Err(error) => return Err(ApiError::new(ErrorCode::Internal, "the work ended in a panic").cause(error).into()),
        },
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        _ = hangup.recv() => false,
        () = lost.heard() => true,
    };
    workplace.interrupt();
    let dirty = workplace.dirty();
    if is_lost {
        let error = ApiError::new(ErrorCode::WrongState, "an image can't be read to its end")
            .cause("it was cut short meanwhile, or its disk fails")
            .remedy("let nobody write to images while form reads them; if nobody does, the kernel's log names the disk (dmesg)");
        return Err(dirty.iter().fold(error, |error, path| left_dirty(error, path)).into());
    }
    if let Some(path) = dirty {
        output.note(&dirty_remark(&path));
    }
    Err(Stop::Interrupted)
}
