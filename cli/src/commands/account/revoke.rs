use form_node::auth::Address;
use hyper::Method;
use serde_json::json;

use crate::args::{KeyArgs, NodeArgs, parse};
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;

/// Take back what an address may do with an instance and all of its cluster
///
/// Only the owner may. The owner's own right can't be taken back.
#[derive(clap::Args)]
pub(crate) struct RevokeArgs {
    /// Name or id of the instance
    #[arg(long, value_name = "NAME|ID")]
    instance: String,
    /// Who: 40 hex digits, with or without 0x
    #[arg(long, value_parser = parse::<Address>)]
    address: Address,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) async fn run(args: RevokeArgs, output: Output) -> Result<(), Stop> {
    let RevokeArgs { instance, address, node, key } = args;
    let session = Session::open(node, &key).await?;
    let name = super::grant::change(&session, Method::DELETE, &instance, address, None).await?;
    output.result(&json!({ "instance": name, "address": address, "level": null }), || {
        format!("{address} has no right on {name} any more")
    });
    Ok(())
}
