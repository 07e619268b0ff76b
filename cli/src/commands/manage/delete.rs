use hyper::Method;
use serde_json::{Value, json};

use crate::args::{InstanceArgs, KeyArgs, NodeArgs};
use crate::client::{Patience, Subject};
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;

/// Delete a stopped instance, with its disks
///
/// It leaves its cluster; the other instances are not touched. With the last instance the cluster's commits go too.
/// Nothing is asked and nothing can be brought back. Needs the level owner.
#[derive(clap::Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) async fn run(args: DeleteArgs, output: Output) -> Result<(), Stop> {
    let session = Session::open(args.node, &args.key).await?;
    let instance = session.instance(&args.instance).await?;
    let path = format!("/api/v1/instances/{}", instance.instance_id);
    let _: Value = session
        .client
        .signed(&session.signer, (Method::DELETE, &path), Subject::from(&instance), None::<&()>, Patience::Work)
        .await?;
    output.result(&json!({ "deleted": instance.name, "instance_id": instance.instance_id }), || {
        format!("deleted {}", instance.name)
    });
    Ok(())
}
