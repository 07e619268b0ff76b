use serde_json::json;

use crate::exit::Stop;
use crate::output::Output;

/// Forget a node: its key is refused from now on
///
/// For a node that is ended and has no instances any more. Run it where the state store is. A node that was removed is
/// enrolled again only by making it anew.
#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    /// The node's id, as `form node status` shows it: 64 hex digits
    #[arg(value_name = "NODE_ID")]
    node_id: String,
    /// The state store of its installation: sqlite:PATH
    #[arg(long, value_name = "URL")]
    store: String,
}

pub(super) async fn run(args: RemoveArgs, output: Output) -> Result<(), Stop> {
    form_node::remove(&args.store, &args.node_id).await?;
    output.result(&json!({ "node_id": args.node_id }), || format!("removed {}", args.node_id));
    Ok(())
}
