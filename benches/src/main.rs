//! `form-bench compare | growth | targets | pause | report`: the benchmarks that run programs, and the documents made of all figures.

use std::{fs, path::Path, process::ExitCode};

use form_benches::{Result, bounds, compare, growth, pause, report, settings::Settings, table, targets, yardstick};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("form-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["compare"] => compare_tools(),
        ["growth"] => {
            growth::run(&Settings::from_env()?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["targets"] => {
            targets::run(&Settings::from_env()?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["pause"] => {
            pause::run(&Settings::from_env()?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["report"] => {
            report::write(&Settings::from_env()?, Path::new("docs"))?;
            Ok(ExitCode::SUCCESS)
        }
        ["yardstick", verb, files @ ..] => {
            let files: Vec<&Path> = files.iter().map(Path::new).collect();
            println!("{}", yardstick::run(verb, &files)?);
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("usage: form-bench compare | growth | targets | pause | report".into()),
    }
}

fn compare_tools() -> Result<ExitCode> {
    let settings = Settings::from_env()?;
    let (comparison, failures) = compare::run(&settings)?;
    println!("{}", table::comparison(&comparison));
    let bounds = bounds::lines(&comparison, &report::rows(&settings)?);
    fs::write(settings.dir.join("bounds.json"), serde_json::to_string_pretty(&bounds)? + "\n")?;
    println!("{}", table::bounds(&bounds));
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
