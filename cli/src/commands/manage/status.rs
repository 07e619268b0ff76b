use form_node::api::types::{AttemptView, InstanceView};
use serde_json::json;

use super::attempt;
use super::clusters::{self, Cluster};
use super::instances::table;
use super::watch;
use crate::args::{InstanceArgs, NodeArgs};
use crate::client::Client;
use crate::exit::Stop;
use crate::output::Output;
use crate::units::utc;

/// Show an instance, its cluster, its commits, and the commit that is under way; or all clusters
///
/// Of a commit that is under way it shows the phase, and who waits for whom. Without --id and --name it shows every
/// cluster: its head, its instances, and its attempt in flight.
#[derive(clap::Args)]
#[command(mut_group("instance", |group| group.required(false)))]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    instance: Option<InstanceArgs>,
    #[command(flatten)]
    node: NodeArgs,
    /// Go on until Ctrl-C, and show what changes: each instance, the attempt in flight with its phase and coordinator,
    /// each participant's durable step, and who waits for whom. On a terminal it is painted over; elsewhere each change
    /// is a line, and with --json an object
    #[arg(short, long)]
    watch: bool,
}

pub(super) async fn run(args: StatusArgs, output: Output) -> Result<(), Stop> {
    let client = Client::new(args.node.node);
    if args.watch {
        let only = args.instance.as_ref().map(InstanceArgs::id_or_name);
        return watch::watch(&client, only, output).await;
    }
    let Some(instance) = args.instance else {
        let clusters = Cluster::all(&client).await?;
        output.result(&json!({ "clusters": clusters }), || clusters::text(&clusters));
        return Ok(());
    };
    let instance = client.instance(instance.id_or_name()).await?;
    let mut members: Vec<InstanceView> = client.get("/api/v1/instances").await?;
    members.retain(|member| member.cluster_id == instance.cluster_id);
    let attempt = match &instance.attempt_id {
        Some(id) => attempt::ask(&client, id).await?,
        None => None,
    };
    let value = json!({ "instance": instance, "members": members, "attempt": attempt });
    output.result(&value, || text(&instance, &members, attempt.as_ref()));
    Ok(())
}

fn text(instance: &InstanceView, members: &[InstanceView], attempt: Option<&AttemptView>) -> String {
    let mut text = format!(
        "{}: {}\nid        {}\ncluster   {}\nnode      {}\nowner     {}\ncommit    {}",
        instance.name,
        instance.status,
        instance.instance_id,
        instance.cluster_id,
        instance.node_id,
        instance.owner,
        instance.snapshot_id.as_deref().unwrap_or("none yet"),
    );
    text += "\nattempt   ";
    text += &match (attempt, &instance.attempt_id) {
        (Some(attempt), _) => format!("{}\n          {}", attempt.attempt_id, attempt::describe(attempt)),
        (None, Some(id)) => format!("{id} (the node asked knows no more of it)"),
        (None, None) => match instance.snapshots.last() {
            Some(last) => format!("none in flight; the last commit was made on {}", utc(last.timestamp_ms)),
            None => "none in flight".into(),
        },
    };
    text += &format!("\n\n{}", table(members));
    if !instance.snapshots.is_empty() {
        text += "\n\ncommits, oldest first:";
        for snapshot in &instance.snapshots {
            let line = format!("{}  {}  {}", snapshot.snapshot_id, utc(snapshot.timestamp_ms), snapshot.description);
            text += &format!("\n{}", line.trim_end());
        }
    }
    text
}
