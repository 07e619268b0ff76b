use form_node::ErrorCode;
use form_node::api::types::{AttemptEvent, AttemptView, InstanceView};
use serde_json::json;

use super::instances::table;
use crate::args::{InstanceArgs, NodeArgs};
use crate::client::{Client, segment};
use crate::exit::Stop;
use crate::output::Output;
use crate::units::bytes;

/// Show an instance, its cluster, its commits, and the commit that is under way
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) async fn run(args: StatusArgs, output: Output) -> Result<(), Stop> {
    let client = Client::new(args.node.node);
    let instance = client.instance(args.instance.id_or_name()).await?;
    let mut members: Vec<InstanceView> = client.get("/api/v1/instances").await?;
    members.retain(|member| member.cluster_id == instance.cluster_id);
    let attempt = match &instance.attempt_id {
        Some(id) => match client.get::<AttemptView>(&format!("/api/v1/attempts/{}", segment(id))).await {
            Ok(attempt) => Some(attempt),
            // Settled meanwhile and forgotten, or known to another node alone.
            Err(error) if error.code == ErrorCode::NotFound => None,
            Err(error) => return Err(error.into()),
        },
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
    match (attempt, &instance.attempt_id) {
        (Some(attempt), _) => {
            text += &format!("\nattempt   {}: {}", attempt.attempt_id, attempt.outcome);
            text += if attempt.settled { ", settled" } else { ", not settled yet" };
            if let Some(event) = &attempt.last_event {
                text += &format!("; last: {}", describe(event));
            }
        }
        (None, Some(id)) => text += &format!("\nattempt   {id} (the node asked knows no more of it)"),
        (None, None) => text += "\nattempt   none under way",
    }
    text += &format!("\n\n{}", table(members));
    if !instance.snapshots.is_empty() {
        text += "\n\ncommits, oldest first:";
        for snapshot in &instance.snapshots {
            text += &format!("\n{}  {}", snapshot.snapshot_id, snapshot.description);
        }
    }
    text
}

fn describe(event: &AttemptEvent) -> String {
    match event {
        AttemptEvent::Phase { target, phase, .. } => {
            format!("{}{phase}", target.as_ref().map_or(String::new(), |target| format!("{target} ")))
        }
        AttemptEvent::Bytes { target, phase, done, total } => format!(
            "{}{phase}, {} of {}",
            target.as_ref().map_or(String::new(), |target| format!("{target} ")),
            bytes(*done),
            bytes(*total)
        ),
        AttemptEvent::Snapshot { snapshot_id } => format!("commit {snapshot_id}"),
        AttemptEvent::Committed { .. } => "committed".into(),
        AttemptEvent::Failed { error } => format!("failed: {}", error.message),
        AttemptEvent::Settled { .. } => "settled".into(),
    }
}
