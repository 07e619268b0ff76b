//! `make demo`: three nodes, three guests, two commits, everything checked while it is shown.
//!
//! Nothing is scripted output: every line comes from the running system, every check mark from a comparison that was made.
//! With KEEP=1 the cluster is left up; `form-demo stop DIR` ends it.

mod commit;
mod left_up;
mod screen;
mod story;

use std::path::Path;
use std::process::ExitCode;

use form_tests::{Error, Result, Scene};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let end = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => story::tell(std::env::var_os("KEEP").is_some_and(|keep| !keep.is_empty() && keep != "0")),
        ["stop", dir] => stop(Path::new(dir)),
        _ => Err(Error::new("usage: form-demo | form-demo stop DIR")),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n✗ {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn stop(dir: &Path) -> Result<()> {
    let scene = Scene::of(dir)?;
    let count = scene.processes().len();
    scene.remove()?;
    println!("ended {count} processes and removed {}", dir.display());
    Ok(())
}
