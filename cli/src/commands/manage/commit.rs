use form_node::api::types::{CommitAccepted, CommitVmRequest};
use hyper::Method;
use serde::Serialize;

use super::follow::{Follow, LOST_AFTER};
use crate::args::{InstanceArgs, KeyArgs, NodeArgs};
use crate::client::{Patience, Subject};
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;
use crate::progress::Progress;
use crate::summary;

/// Carry the state of one instance, memory and disks, to every other instance of its cluster
///
/// Either all of them run it afterwards, or all of them run what they ran before. The guest goes on except for a short
/// pause while it is captured; the others are replaced by it, and keep running. Needs the level manager.
///
/// Progress goes to stderr: bars on a terminal, otherwise a line for each phase. The summary goes to stdout. With
/// --json each event is one JSON object on a line of stdout: first {"type":"accepted", ...}, last {"type":"settled", ...}
/// with the summary. Ctrl-C ends the showing, not the commit.
#[derive(clap::Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// What changed, for the history
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Undo it if it is not committed within this time
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    key: KeyArgs,
}

/// The first line of a commit's JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "accepted")]
struct Accepted<'a> {
    #[serde(flatten)]
    accepted: &'a CommitAccepted,
}

pub(super) async fn run(args: CommitArgs, output: Output) -> Result<(), Stop> {
    let session = Session::open(args.node, &args.key).await?;
    let instance = session.instance(&args.instance).await?;
    let request = CommitVmRequest {
        id: Some(instance.instance_id.clone()),
        description: args.description,
        timeout_s: args.timeout,
        // What the user saw when asking; if another commit wins meanwhile, this one is a conflict.
        parent: instance.snapshot_id.clone(),
        ..CommitVmRequest::default()
    };
    let accepted: CommitAccepted = session
        .client
        .signed(
            &session.signer,
            (Method::POST, "/api/v1/commit"),
            Subject::from(&instance),
            Some(&request),
            Patience::Work,
        )
        .await?;
    if output.is_json() {
        output.json_line(&Accepted { accepted: &accepted });
    } else {
        output.note(&format!("committing {} to {}", instance.name, accepted.targets.join(", ")));
    }
    let look = format!("form manage status --id {} --node {}", instance.instance_id, session.client.node());
    let mut progress = Progress::new(output, &instance.name);
    let follow =
        Follow { client: &session.client, attempt_id: &accepted.attempt_id, look: &look, lost_after: LOST_AFTER };
    let outcome = tokio::select! {
        outcome = follow.run(&mut progress) => outcome,
        // An error means that Ctrl-C can't be listened for: then it ends the process, as it would have.
        Ok(()) = tokio::signal::ctrl_c() => {
            progress.finish();
            output.note(&format!("the commit goes on at the node; look with: {look}"));
            return Err(Stop::Interrupted);
        }
    };
    progress.finish();
    if let Some(summary) = outcome?
        && !output.is_json()
    {
        output.result(&summary, || summary::text(&summary));
    }
    Ok(())
}
