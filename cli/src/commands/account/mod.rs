//! `form account`.

mod grant;
mod new;
mod revoke;

use clap::Subcommand;

use crate::exit::Stop;
use crate::output::Output;

/// Make keys, and say who may do what with which instance
#[derive(Subcommand)]
pub(crate) enum AccountCommand {
    New(new::NewArgs),
    Grant(grant::GrantArgs),
    Revoke(revoke::RevokeArgs),
}

pub(super) async fn run(command: AccountCommand, output: Output) -> Result<(), Stop> {
    match command {
        AccountCommand::New(args) => new::run(args, output),
        AccountCommand::Grant(args) => grant::run(args, output).await,
        AccountCommand::Revoke(args) => revoke::run(args, output).await,
    }
}
