//! A run that is interrupted leaves nothing behind either.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use crate::{Context, Result, scene};

static SCENES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// From now on SIGINT, SIGTERM and SIGHUP remove it before they end the process.
pub(crate) fn on_interrupt_remove(dir: &Path) -> Result<()> {
    static WATCHING: Once = Once::new();
    SCENES.lock().unwrap_or_else(PoisonError::into_inner).push(dir.to_owned());
    let mut watching = Ok(());
    WATCHING.call_once(|| watching = watch());
    watching
}

pub(crate) fn forget(dir: &Path) {
    SCENES.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != dir);
}

fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context(|| "watch for signals".into())?;
    let enter = runtime.enter();
    let listen = |kind| signal(kind).context(|| "watch for signals".into());
    let (mut int, mut term, mut hup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    drop(enter);
    std::thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = int.recv() => 130,
                _ = term.recv() => 143,
                _ = hup.recv() => 129,
            }
        });
        eprintln!("\ninterrupted: removing what was started");
        // The lock stays taken: nothing new begins.
        let scenes = SCENES.lock().unwrap_or_else(PoisonError::into_inner);
        for dir in scenes.iter() {
            if let Err(error) = scene::remove(dir) {
                eprintln!("left behind: {error:?}");
            }
        }
        std::process::exit(code)
    });
    Ok(())
}
