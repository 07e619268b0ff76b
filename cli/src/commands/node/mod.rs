//! `form node`.

mod doctor;
mod init;
mod keeper;
mod log;
mod remove;
mod run;
mod status;

use clap::Subcommand;

use crate::exit::Stop;
use crate::output::Output;

/// Make, run and look at a node: the daemon on each host
#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    Doctor(doctor::DoctorArgs),
    Init(init::InitArgs),
    #[command(hide = true)]
    Keeper(keeper::KeeperArgs),
    Remove(remove::RemoveArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
}

impl NodeCommand {
    pub(super) fn is_keeper(&self) -> bool {
        matches!(self, NodeCommand::Keeper(_))
    }

    pub(super) fn is_node(&self) -> bool {
        matches!(self, NodeCommand::Run(_))
    }
}

pub(super) async fn run(command: NodeCommand, output: Output) -> Result<(), Stop> {
    match command {
        NodeCommand::Doctor(args) => doctor::run(args, output).await,
        NodeCommand::Init(args) => init::run(args, output).await,
        // It has no use for a runtime: main has run it.
        NodeCommand::Keeper(_) => Ok(()),
        NodeCommand::Remove(args) => remove::run(args, output).await,
        NodeCommand::Run(args) => run::run(args, output).await,
        NodeCommand::Status(args) => status::run(args, output).await,
    }
}
