use form_node::api::types::InstanceView;
use hyper::Method;

use crate::args::{InstanceArgs, KeyArgs, NodeArgs};
use crate::client::{Patience, Subject};
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;

/// Boot a stopped instance
///
/// Its disks are as they were left; memory starts anew.
#[derive(clap::Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) async fn run(args: StartArgs, output: Output) -> Result<(), Stop> {
    let session = Session::open(args.node, &args.key).await?;
    let instance = session.instance(&args.instance).await?;
    let path = format!("/api/v1/instances/{}/start", instance.instance_id);
    let view: InstanceView = session
        .client
        .signed(&session.signer, (Method::POST, &path), Subject::from(&instance), None::<&()>, Patience::Work)
        .await?;
    output.result(&view, || format!("{}: {}", view.name, view.status));
    Ok(())
}
