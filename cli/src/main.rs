//! The command line: what was typed is parsed, signed and sent to a node, and its answer shown.
//!
//! `args` is what was typed, `keys` what it means; one file per command; `client` speaks to the node.

mod args;
mod client;
mod clock;
mod commands;
mod exit;
mod heap;
mod keys;
mod lost_image;
mod output;
mod progress;
mod summary;
mod table;
mod terminal;
mod units;
mod words;

use std::process::ExitCode;

use clap::Parser;
use form_node::{ApiError, ErrorCode};

use crate::args::Cli;
use crate::exit::Stop;
use crate::output::Output;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    if cli.command.is_keeper() {
        return form_node::keep();
    }
    if cli.command.is_node() {
        heap::give_back();
    }
    let output = Output::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            return output
                .failure(&ApiError::new(ErrorCode::Internal, "the command could not start its threads").cause(cause));
        }
    };
    let answer = runtime.block_on(commands::run(cli.command, output));
    // A read of the terminal may still wait on a thread of its own; it must not hold the process.
    runtime.shutdown_background();
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Failed(error)) => output.failure(&error),
        Err(Stop::Unhealthy) => ExitCode::from(exit::UNHEALTHY),
        Err(Stop::Interrupted) => ExitCode::from(exit::INTERRUPTED),
    }
}
