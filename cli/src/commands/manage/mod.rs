//! `form manage`.

mod attempt;
mod clusters;
mod commit;
mod console;
mod create;
mod delete;
mod follow;
mod instances;
mod replay;
mod start;
mod status;
mod stop;
mod watch;

use clap::Subcommand;

use crate::exit::Stop;
use crate::output::Output;

/// Make, run, change and commit instances: the virtual machines
#[derive(Subcommand)]
pub(crate) enum ManageCommand {
    Create(create::CreateArgs),
    Start(start::StartArgs),
    Stop(stop::StopArgs),
    Delete(delete::DeleteArgs),
    Instances(instances::InstancesArgs),
    Console(console::ConsoleArgs),
    Commit(commit::CommitArgs),
    Status(status::StatusArgs),
}

pub(super) async fn run(command: ManageCommand, output: Output) -> Result<(), Stop> {
    match command {
        ManageCommand::Create(args) => create::run(args, output).await,
        ManageCommand::Start(args) => start::run(args, output).await,
        ManageCommand::Stop(args) => stop::run(args, output).await,
        ManageCommand::Delete(args) => delete::run(args, output).await,
        ManageCommand::Instances(args) => instances::run(args, output).await,
        ManageCommand::Console(args) => console::run(args).await,
        ManageCommand::Commit(args) => commit::run(args, output).await,
        ManageCommand::Status(args) => status::run(args, output).await,
    }
}
