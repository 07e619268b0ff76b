//! `form node doctor`: looks at a node and names what is wrong with it, each with what to do. It changes nothing.
//!
//! A node that runs examines itself, and knows more: its VMs' states, its peers. Of one that does not run, the data
//! directory is looked at from outside.

mod files;
mod host;
mod own;
mod peers;
mod shared;
mod vms;

use std::path::Path;
use std::sync::Arc;

use form_vmm_hooks::{Qemu, QemuConfig};

use super::db::NodeDb;
use super::flight;
use super::instance::LocalInstance;
use super::layout::Layout;
use super::recover::attempt_id;
use super::{Node, blocking, target};
use crate::api::flight::ParticipantInFlight;
use crate::api::health::{Finding, HealthView, Verdict};
use crate::config::NodeConfig;
use crate::error::ApiError;
use crate::store::Store;

/// What is examined.
struct Patient<'a> {
    layout: &'a Layout,
    config: &'a NodeConfig,
    /// `None` when it can't be opened, which is a finding already.
    store: Option<Store>,
    /// `None` of a node that never ran.
    db: Option<NodeDb>,
    instances: Vec<LocalInstance>,
    participants: Vec<ParticipantInFlight>,
    /// The node itself, when it is the one that examines.
    node: Option<&'a Arc<Node>>,
}

/// Findings in the order in which they were made.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &str, message: impl Into<String>) {
        self.add(check, Verdict::Ok, message.into(), None);
    }

    fn note(&mut self, check: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Verdict::Note, message.into(), Some(remedy.into()));
    }

    fn problem(&mut self, check: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(check, Verdict::Problem, message.into(), Some(remedy.into()));
    }

    /// An error of something that should have worked.
    fn failed(&mut self, check: &str, error: &ApiError, otherwise: &str) {
        let message = match &error.cause {
            Some(cause) => format!("{}: {cause}", error.message),
            None => error.message.clone(),
        };
        self.problem(check, message, error.remedy.as_deref().unwrap_or(otherwise));
    }

    fn add(&mut self, check: &str, verdict: Verdict, message: String, remedy: Option<String>) {
        self.0.push(Finding { check: check.to_owned(), verdict, message, remedy });
    }

    fn has_problem(&self, check: &str) -> bool {
        self.0.iter().any(|finding| finding.check == check && finding.verdict == Verdict::Problem)
    }
}

/// A node that runs, by itself.
pub(crate) async fn of_running(node: &Arc<Node>) -> Result<HealthView, ApiError> {
    let mut findings = Findings::default();
    own::settings(&mut findings, &node.config);
    own::key(&mut findings, &node.layout);
    let db = node.db.clone();
    let (instances, participants) =
        blocking("read node.db", move || Ok((db.instances()?, flight::participants(&db)?))).await?;
    let patient = Patient {
        layout: &node.layout,
        config: &node.config,
        store: Some(node.store.clone()),
        db: Some(node.db.clone()),
        instances,
        participants,
        node: Some(node),
    };
    host::vmm(&mut findings, &*node.vmms.qemu, &patient).await;
    host::memory(&mut findings, &*node.vmms.qemu, &patient);
    examine(&mut findings, &patient).await;
    Ok(HealthView::new(Some(node.id().to_string()), true, findings.0))
}

/// A node's data directory, whether or not the node runs. With `verify` every base image is read in full. Of a node that
/// runs, it knows more of itself: `GET /api/v1/health` at the address that is returned beside.
///
/// # Errors
/// A fault of ours; what is wrong with the node is a finding.
pub async fn doctor(data_dir: &Path, verify: bool) -> Result<(HealthView, Option<std::net::SocketAddr>), ApiError> {
    let (layout, mut findings) = (Layout::new(data_dir), Findings::default());
    let config = match NodeConfig::load(&layout.config()) {
        Ok(config) => config,
        Err(error) => {
            findings.failed("settings", &error, "bring node.toml back");
            return Ok((HealthView::new(None, false, findings.0), None));
        }
    };
    own::settings(&mut findings, &config);
    let node_id = own::key(&mut findings, &layout);
    let running = own::lock(&mut findings, &layout);
    let store = shared::open(&mut findings, &config).await;
    let db = own::db(&mut findings, &layout);
    let read = |db: &NodeDb| Ok::<_, ApiError>((db.instances()?, flight::participants(db)?));
    let (instances, participants) = match db.as_ref().map(read) {
        Some(Ok(read)) => read,
        Some(Err(error)) => {
            findings.failed("settings", &error, "bring node.db back from a backup: docs/operate.md");
            Default::default()
        }
        None => Default::default(),
    };
    let patient = Patient { layout: &layout, config: &config, store, db, instances, participants, node: None };
    let binary = config.qemu.clone().unwrap_or_else(|| "qemu-system-x86_64".into());
    // It captures nothing, so it needs no keeper.
    let qemu = Qemu::new(QemuConfig { binary, ..QemuConfig::default() });
    host::vmm(&mut findings, &qemu, &patient).await;
    host::memory(&mut findings, &qemu, &patient);
    examine(&mut findings, &patient).await;
    if verify {
        files::verify(&mut findings, &patient).await;
    }
    Ok((HealthView::new(node_id, running, findings.0), running.then_some(config.api)))
}

async fn examine(findings: &mut Findings, patient: &Patient<'_>) {
    shared::store(findings, patient).await;
    shared::clock(findings, patient).await;
    host::writing(findings, patient);
    files::space(findings, patient);
    files::bases(findings, patient).await;
    vms::instances(findings, patient).await;
    vms::strangers(findings, patient);
    vms::in_flight(findings, patient);
    files::leftovers(findings, patient);
    peers::peers(findings, patient).await;
}

/// The directory of the VM that a participant would become.
fn incoming(participant: &ParticipantInFlight) -> Option<String> {
    attempt_id(&participant.attempt_id).ok().map(target::live_name)
}

/// Bytes as people read them.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
