//! One commit, typed as a user types it, with its progress and summary on the terminal.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use form_node::api::types::{AttemptEvent, AttemptView, CommitSummary, InstanceView};
use form_tests::{Context, Error, Form, Result, send};

use crate::screen::{check_that, command, say, size, title};

/// Commits `name` from the node at `api`; what the node says of it afterwards is the answer.
pub(crate) fn commit(
    form: &Form,
    api: SocketAddr,
    mnemonic: &str,
    name: &str,
    description: &str,
) -> Result<CommitSummary> {
    command(&["manage", "commit", "--name", name, "--mnemonic", "…", "--description", description]);
    let began = Instant::now();
    let words = ["manage", "commit", "--name", name, "--mnemonic", mnemonic, "--description", description];
    let mut process = form.command(words).spawn().context(|| "run form".into())?;
    // The attempt is named by the instance while it is in it; what it came to is asked for when it is over.
    let mut attempt = None;
    let status = loop {
        if let Some(status) = process.try_wait().context(|| "wait for form".into())? {
            break status;
        }
        if attempt.is_none() {
            attempt = get::<InstanceView>(api, &format!("/api/v1/instances/{name}"))?.attempt_id;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let took = began.elapsed();
    check_that("the commit succeeded", status.success())?;
    let attempt = attempt.ok_or_else(|| Error::new("the commit was over before it was seen"))?;
    let view: AttemptView = get(api, &format!("/api/v1/attempts/{attempt}"))?;
    let Some(AttemptEvent::Settled { summary: Some(summary) }) = view.last_event else {
        return Err(Error::new(format!("the attempt has no summary: {view:?}")));
    };
    figures(&summary, took)?;
    Ok(*summary)
}

/// The few figures that matter most, and the check that every target staged what was captured.
fn figures(summary: &CommitSummary, took: Duration) -> Result<()> {
    let allocated = summary.ram_allocated_bytes + summary.disk_allocated_bytes;
    title(&format!("What it took: {:.1} s from the command to its summary", took.as_secs_f64()));
    for target in &summary.targets {
        let percent = target.sent_bytes as f64 * 100.0 / allocated.max(1) as f64;
        say(&format!(
            "to {}: {} sent (counted at the socket), {percent:.2} % of one guest's {} allocated (RAM {}, disk {})",
            target.instance,
            size(target.sent_bytes),
            size(allocated),
            size(summary.ram_allocated_bytes),
            size(summary.disk_allocated_bytes),
        ));
        say(&format!("    downtime {:.1} ms, rebuilt with {}", target.downtime_ns as f64 / 1e6, target.engine));
    }
    say(&format!("{} was paused for {:.1} ms", summary.source, summary.pause_ns as f64 / 1e6));
    for target in &summary.targets {
        let staged = |name: &String, root: &String| target.staged_roots.get(name) == Some(root);
        let all = summary.artifacts.iter().all(|artifact| staged(&artifact.name, &artifact.root));
        let what =
            format!("{}: the {} images staged hash to what was captured", target.instance, summary.artifacts.len());
        check_that(&what, all && summary.artifacts.len() >= 3)?;
    }
    Ok(())
}

fn get<T: serde::de::DeserializeOwned>(api: SocketAddr, path: &str) -> Result<T> {
    let reply = send(api, "GET", path, &[], "")?;
    serde_json::from_str(&reply.body).context(|| format!("read the answer to GET {path}: {}", reply.body))
}
