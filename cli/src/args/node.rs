//! Which node.

use crate::client::NodeUrl;

/// Where the API is.
#[derive(clap::Args)]
pub(crate) struct NodeArgs {
    /// The node to ask; any node of the installation passes on what is not its own
    #[arg(
        long = "node",
        value_name = "URL",
        env = "FORM_NODE",
        hide_env_values = true,
        default_value = "http://127.0.0.1:3002"
    )]
    pub(crate) node: NodeUrl,
}
