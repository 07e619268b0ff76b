//! One file per command; its doc comment is its help.

mod account;
mod delta;
mod manage;
mod node;
mod session;

use clap::Subcommand;

use crate::exit::Stop;
use crate::output::Output;

/// What can be done.
#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(subcommand)]
    Node(node::NodeCommand),
    #[command(subcommand)]
    Manage(manage::ManageCommand),
    #[command(subcommand)]
    Account(account::AccountCommand),
    #[command(subcommand)]
    Delta(delta::DeltaCommand),
}

impl Command {
    /// Whether this is the process beside a guest: small, and without a runtime.
    pub(crate) fn is_keeper(&self) -> bool {
        matches!(self, Command::Node(command) if command.is_keeper())
    }

    /// Whether this is a node, which lives long.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self, Command::Node(command) if command.is_node())
    }
}

pub(crate) async fn run(command: Command, output: Output) -> Result<(), Stop> {
    match command {
        Command::Node(command) => node::run(command, output).await,
        Command::Manage(command) => manage::run(command, output).await,
        Command::Account(command) => account::run(command, output).await,
        Command::Delta(command) => delta::run(command, output).await,
    }
}
