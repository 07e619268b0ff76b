use std::path::{Path, PathBuf};

use form_node::api::types::{CreateRequest, Created};
use form_node::spec::SPEC_BYTES_MAX;
use form_node::{ApiError, ErrorCode};
use hyper::Method;

use crate::args::{KeyArgs, NodeArgs};
use crate::client::{Patience, Subject};
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;
use crate::units::bytes;

/// Make an instance on a node
///
/// With --spec it is the first of a new cluster, and the signer becomes its owner. With --like it joins the cluster of
/// another instance, wherever that runs: the node receives the cluster's current commit.
#[derive(clap::Args)]
#[group(id = "from", required = true, multiple = false, args = ["spec", "like"])]
pub(crate) struct CreateArgs {
    /// The new instance's name, unique in the installation
    #[arg(short, long)]
    name: String,
    /// Instance spec (TOML)
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Name or id of an instance whose cluster it joins
    #[arg(long, value_name = "NAME|ID")]
    like: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) async fn run(args: CreateArgs, output: Output) -> Result<(), Stop> {
    let spec = args.spec.as_deref().map(read_spec).transpose()?;
    let session = Session::open(args.node, &args.key).await?;
    let like = match &args.like {
        Some(like) => Some(session.client.instance(like).await?),
        None => None,
    };
    let request = CreateRequest {
        name: args.name.clone(),
        spec,
        like: like.as_ref().map(|instance| instance.instance_id.clone()),
    };
    let created: Created = session
        .client
        .signed(
            &session.signer,
            (Method::POST, "/api/v1/instances"),
            like.as_ref().map_or(Subject::NONE, Subject::from),
            Some(&request),
            Patience::Work,
        )
        .await?;
    output.result(&created, || {
        let mut text =
            format!("created {}\ninstance  {}\ncluster   {}", args.name, created.instance_id, created.cluster_id);
        if let Some(snapshot_id) = &created.snapshot_id {
            text += &format!("\ncommit    {snapshot_id}, {} received", bytes(created.received_bytes));
        }
        text
    });
    Ok(())
}

fn read_spec(path: &Path) -> Result<String, ApiError> {
    let unreadable = |cause: String| {
        ApiError::new(ErrorCode::BadRequest, format!("the spec {} can't be read", path.display())).cause(cause)
    };
    let length_bytes = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length_bytes > SPEC_BYTES_MAX as u64 {
        return Err(unreadable(format!("it has {length_bytes} bytes, more than {SPEC_BYTES_MAX}")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}
