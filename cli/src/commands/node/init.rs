use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use crate::exit::Stop;
use crate::output::Output;

/// Make a node: its data directory, its key, its settings, and its entry in the state store
///
/// The directory must be new or empty. What is written there is for the owner alone; node.toml in it may be edited
/// while the node does not run.
#[derive(clap::Args)]
pub(crate) struct InitArgs {
    /// The node's data directory; it is made if it does not exist
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The state store that all nodes of the installation share, outside of any data directory: sqlite:PATH
    #[arg(long, value_name = "URL")]
    store: String,
    /// Where the HTTP API listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3002")]
    api: SocketAddr,
    /// Where the nodes' own transport (QUIC, UDP) listens; other nodes must reach it under this address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3003")]
    quic: SocketAddr,
    /// QEMU's binary, when it is not qemu-system-x86_64 on the PATH
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

pub(super) async fn run(args: InitArgs, output: Output) -> Result<(), Stop> {
    let made = form_node::init(&form_node::InitOptions {
        data_dir: args.data.clone(),
        store: args.store,
        api: args.api,
        quic: args.quic,
        qemu: args.qemu,
    })
    .await?;
    output.result(&json!({ "node_id": made.node_id, "installation_id": made.installation_id }), || {
        format!(
            "node          {}\ninstallation  {}\nrun it with: form node run --data {}",
            made.node_id,
            made.installation_id,
            args.data.display()
        )
    });
    Ok(())
}
