//! `make mutants`: changes one line at a time in a copy of the tree and shows which test catches it.
//!
//! Arguments: names of mutants, or parts of them; none means all.

mod copy;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use form_tests::{Mutant, Mutants};

/// What a test said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ran {
    Passed,
    Failed,
    /// Something else came in the way: it does not compile, or there is no such test.
    NotRun,
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("{survivors} of the mutants were not caught");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no repository")?.to_owned();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut mutants = Mutants::load(&root)?.mutant;
    mutants.retain(|mutant| wanted.is_empty() || wanted.iter().any(|part| mutant.name.contains(part.as_str())));
    let place = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("mutants");
    let tree = place.join("tree");
    copy::tree(&root, &tree)?;

    let mut checked = BTreeSet::new();
    for mutant in &mutants {
        if checked.insert((&mutant.target, &mutant.test)) && test(mutant, &place)? != Ran::Passed {
            return Err(format!("without any change, {} does not pass", mutant.test));
        }
    }
    println!("{:55} {:48} {:60} {:>6}", "mutant", "file", "caught by", "s");
    let mut survivors = 0;
    for mutant in &mutants {
        let (path, began) = (tree.join(&mutant.file), Instant::now());
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let write = |text: &str| std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()));
        write(&mutant.of(&text)?)?;
        let ran = test(mutant, &place);
        write(&text)?;
        let caught = match ran? {
            Ran::Failed => mutant.test.as_str(),
            Ran::Passed => "NOT CAUGHT",
            Ran::NotRun => "NOT RUN: does it compile?",
        };
        survivors += usize::from(caught != mutant.test);
        println!("{:55} {:48} {caught:60} {:>6}", mutant.name, mutant.file, began.elapsed().as_secs());
    }
    Ok(survivors)
}

fn test(mutant: &Mutant, place: &Path) -> Result<Ran, String> {
    // It takes minutes to make.
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(mutant.test_args())
        .args(["--exact", "--include-ignored"])
        .current_dir(place.join("tree"))
        .env("CARGO_TARGET_DIR", place.join("build"))
        .env("FORM_TEST_GUEST", guest)
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = |end: &str| said.lines().any(|line| line == format!("test {} ... {end}", mutant.test));
    // A test that prints has its verdict on a line of its own; the summary counts it.
    Ok(match (line("ok") || said.contains("1 passed"), line("FAILED") || said.contains("1 failed")) {
        (true, false) => Ran::Passed,
        (false, true) => Ran::Failed,
        _ => Ran::NotRun,
    })
}
