use form_node::api::types::{CommitAccepted, CommitVmRequest, InstanceView};
use form_node::{ApiError, ErrorCode};
use hyper::Method;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::follow::{End, Follow, LOST_AFTER, Outcome};
use crate::args::{InstanceArgs, KeyArgs, NodeArgs};
use crate::client::{Client, Patience, Subject};
use crate::commands::session::Session;
use crate::exit::Stop;
use crate::output::Output;
use crate::progress::Progress;
use crate::summary;
use crate::words::{list, not_settled, not_undone};

/// Carry the state of one instance, memory and disks, to every other instance of its cluster
///
/// Either all of them run it afterwards, or all of them run what they ran before. The guest goes on except for a short
/// pause while it is captured; the others are replaced by it, and keep running. Needs the level manager.
///
/// Progress goes to stderr: bars on a terminal, otherwise a line for each phase. The summary goes to stdout. With
/// --json each event is one JSON object on a line of stdout: first {"type":"accepted", ...}, last {"type":"settled", ...}
/// with the summary. Ctrl-C ends the showing, not the commit.
///
/// Committed is what the state store says: it is final. Settled is when every participant has acknowledged it. One that
/// is gone is waited for 15 seconds and named; its node does the rest when it is back. A commit that is committed but not
/// settled exits with 0, and its last JSON object is {"type":"unsettled", "outcome":"committed", "missing":[names]}.
#[derive(clap::Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    /// Bring only these along, by name or id, separated by commas; the others stay as they are until a later commit
    /// [default: every other instance of the cluster]
    #[arg(long, value_name = "NAME|ID", value_delimiter = ',')]
    targets: Vec<String>,
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

/// The last line, when not everyone has acknowledged the outcome.
#[derive(Serialize)]
#[serde(tag = "type", rename = "unsettled")]
struct Unsettled<'a> {
    /// `committed` or `failed`.
    outcome: &'static str,
    missing: &'a [String],
}

pub(super) async fn run(args: CommitArgs, output: Output) -> Result<(), Stop> {
    let session = Session::open(args.node, &args.key).await?;
    let instance = session.instance(&args.instance).await?;
    let request = CommitVmRequest {
        id: Some(instance.instance_id.clone()),
        description: args.description,
        targets: targets(&session.client, &instance, &args.targets).await?,
        timeout_s: args.timeout,
        // What the user saw when asking; if another commit wins meanwhile, this one is a conflict.
        parent: instance.snapshot_id.clone(),
        ..CommitVmRequest::default()
    };
    let mut accepted: CommitAccepted = session
        .client
        .signed(
            &session.signer,
            (Method::POST, "/api/v1/commit"),
            Subject::from(&instance),
            Some(&request),
            Patience::Work,
        )
        .await?;
    // In the order in which everything about them is shown.
    accepted.targets.sort();
    if output.is_json() {
        output.json_line(&Accepted { accepted: &accepted });
    } else {
        output.note(&format!("committing {} to {}", instance.name, list(&accepted.targets)));
    }
    let look = format!("form manage status --id {} --node {}", instance.instance_id, session.client.node());
    // Listened for before anything is painted, so that it is always taken away again. Where that can't be, Ctrl-C ends
    // the process, as it would have.
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let mut progress = Progress::new(output, &instance.name, &accepted.targets);
    let follow = Follow {
        client: &session.client,
        attempt_id: &accepted.attempt_id,
        participants: std::iter::once(&instance.name).chain(&accepted.targets).cloned().collect(),
        look: &look,
        lost_after: LOST_AFTER,
    };
    let end = tokio::select! {
        end = follow.run(&mut progress) => end,
        Some(()) = async { interrupt.as_mut()?.recv().await } => {
            progress.finish();
            output.note(&format!("the commit goes on at the node; look with: {look}"));
            return Err(Stop::Interrupted);
        }
    };
    progress.finish();
    show(end?, output)
}

/// The ids of the targets that were named, each once; `None` when none was.
async fn targets(client: &Client, source: &InstanceView, names: &[String]) -> Result<Option<Vec<String>>, ApiError> {
    let mut ids: Vec<String> = Vec::new();
    for name in names {
        let target = client.instance(name).await?;
        let wrong = |what: &str, remedy: &str| {
            let message = format!("{} {what} {}", target.name, source.name);
            Err(ApiError::new(ErrorCode::BadRequest, message).remedy(remedy))
        };
        if target.instance_id == source.instance_id {
            return wrong("is no target of a commit of", "leave it out of --targets");
        }
        if target.cluster_id != source.cluster_id {
            return wrong("is not in the cluster of", "`form manage status` shows the clusters");
        }
        if !ids.contains(&target.instance_id) {
            ids.push(target.instance_id);
        }
    }
    Ok((!ids.is_empty()).then_some(ids))
}

fn show(end: End, output: Output) -> Result<(), Stop> {
    match end {
        // Its last event has said it all.
        End::Settled(_) if output.is_json() => Ok(()),
        End::Settled(Some(summary)) => {
            output.result(&summary, || summary::text(&summary));
            Ok(())
        }
        End::Settled(None) => {
            output.result(&(), || "committed and settled; the node was restarted and has no figures of it".into());
            Ok(())
        }
        End::Unsettled { outcome: Outcome::Committed, missing } => {
            let value = Unsettled { outcome: "committed", missing: &missing };
            output.result(&value, || format!("committed; {}", not_settled(&missing)));
            Ok(())
        }
        End::Unsettled { outcome: Outcome::Failed(error), missing } => {
            if output.is_json() {
                output.json_line(&Unsettled { outcome: "failed", missing: &missing });
            } else {
                output.note(&not_undone(&missing));
            }
            Err(error.into())
        }
    }
}
