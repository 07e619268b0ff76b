use std::path::PathBuf;

use form_node::ErrorCode;
use form_node::api::health::{Finding, HealthView, Verdict};

use crate::args::NodeArgs;
use crate::client::{Client, NodeUrl};
use crate::exit::Stop;
use crate::output::Output;

/// Look at a node, and say what is wrong with it and what to do
///
/// It looks at settings, key, state store, clock, VMM, space, base images, instances, what is in flight, what lies about,
/// and the other nodes, and changes nothing. With --data it looks at a node of this host, running or not; without, the
/// running node at --node looks at itself. The exit code is 0 when nothing has to be mended, else 11.
#[derive(clap::Args)]
pub(crate) struct DoctorArgs {
    /// The node's data directory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Also read every base image in full, and compare it with its manifest
    #[arg(long, requires = "data")]
    verify: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) async fn run(args: DoctorArgs, output: Output) -> Result<(), Stop> {
    let health = match &args.data {
        Some(data) => {
            let (outside, api) = form_node::doctor(data, args.verify).await?;
            match api.and_then(|api| api.to_string().parse::<NodeUrl>().ok()) {
                Some(api) => merged(outside, api).await,
                None => outside,
            }
        }
        None => Client::new(args.node.node).get("/api/v1/health").await?,
    };
    output.result(&health, || text(&health));
    if health.healthy { Ok(()) } else { Err(Stop::Unhealthy) }
}

/// Of a node that runs, what it says itself counts; from outside comes only what it can't say.
async fn merged(outside: HealthView, api: NodeUrl) -> HealthView {
    let mut findings = outside.findings;
    match Client::new(api).get::<HealthView>("/api/v1/health").await {
        Ok(inside) => {
            let says = |check: &str| inside.findings.iter().any(|finding| finding.check == check);
            findings.retain(|finding| finding.check == "bases" || !says(&finding.check));
            findings.extend(inside.findings.into_iter().filter(|finding| finding.check != "bases"));
        }
        Err(error) => findings.push(Finding {
            check: "lock".into(),
            verdict: Verdict::Problem,
            message: format!("a process runs the node, and it does not answer: {}", error.message),
            remedy: Some(match error.code {
                ErrorCode::Unavailable => {
                    "look at its log; it may still be starting. If it stays so, restart it".into()
                }
                _ => error.remedy.unwrap_or_else(|| "use the version of `form` that the node has".into()),
            }),
        }),
    }
    HealthView::new(outside.node_id, true, findings)
}

fn text(health: &HealthView) -> String {
    let mut lines = Vec::new();
    for finding in &health.findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Note => "note   ",
            Verdict::Problem => "PROBLEM",
        };
        lines.push(format!("{mark}  {:<10} {}", finding.check, finding.message));
        if let Some(remedy) = &finding.remedy {
            lines.push(format!("{:20}fix: {remedy}", ""));
        }
    }
    let problems = health.findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
    lines.push(match problems {
        0 => "healthy".to_owned(),
        1 => "1 problem".to_owned(),
        more => format!("{more} problems"),
    });
    lines.join("\n")
}
