use std::path::PathBuf;

use form_node::KeeperCommand;

/// Started by a node, never by a person: lets a guest that is paused for its capture go on if the node is killed
#[derive(clap::Args)]
pub(crate) struct KeeperArgs {
    /// The instance
    name: String,
    /// Where its VM's files are
    dir: PathBuf,
}

/// How this very program is started as one, even if its file was replaced since.
pub(super) fn command() -> KeeperCommand {
    KeeperCommand {
        program: "/proc/self/exe".into(),
        called: "form".into(),
        // A name may begin with a dash.
        arguments: vec!["node".into(), "keeper".into(), "--".into()],
    }
}
