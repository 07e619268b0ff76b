//! What was typed.

mod instance;
mod key;
mod node;

use std::str::FromStr;

use clap::Parser;
use form_node::ApiError;

pub(crate) use instance::InstanceArgs;
pub(crate) use key::{KeyArgs, Secret};
pub(crate) use node::NodeArgs;

use crate::commands::Command;
use crate::exit;

/// Replicated virtual machines: change one, commit it, and every other instance of its cluster becomes that machine.
#[derive(Parser)]
// A fixed width keeps help the same on every terminal, and in docs/cli.md.
#[command(name = "form", version, term_width = 100, after_long_help = exit::HELP)]
pub(crate) struct Cli {
    /// Results as JSON on stdout, errors as JSON on stderr
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A value whose error says what to do, for clap.
pub(crate) fn parse<T: FromStr<Err = ApiError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: ApiError| match error.remedy {
        Some(remedy) => format!("{}; {remedy}", error.message),
        None => error.message,
    })
}
