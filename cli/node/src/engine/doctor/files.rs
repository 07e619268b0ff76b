//! What lies in the data directory: is there space, is there what a commit stands on, is there what nobody needs?

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use form_delta::Hash;
use form_transport::Commit;

use super::{Findings, Patient, mib};
use crate::engine::build::chain;
use crate::engine::layout::names;
use crate::engine::lifecycle::free_bytes;
use crate::engine::limits::FREE_BYTES_MIN;
use crate::engine::preflight::images;
use crate::engine::{bases, blocking, standby};
use crate::error::ApiError;

/// A commit to every instance of a cluster that is here needs its space at one time.
pub(super) fn space(findings: &mut Findings, patient: &Patient<'_>) {
    let free = match free_bytes(patient.layout.root()) {
        Ok(free) => free,
        Err(error) => return findings.failed("space", &error, "see that the file system is mounted"),
    };
    let mut needed: BTreeMap<&str, (u64, Vec<&str>)> = BTreeMap::new();
    for local in &patient.instances {
        // One that was never started has no images to be replaced.
        let Ok((_, allocated)) = images(patient.layout, local) else { continue };
        let own =
            allocated.saturating_mul(2).saturating_sub(standby::allocated_bytes(patient.layout, &local.instance_id));
        let (sum, names) = needed.entry(&local.cluster_id).or_default();
        *sum = sum.saturating_add(own).saturating_add(FREE_BYTES_MIN);
        names.push(&local.name);
    }
    for (bytes, names) in needed.values().filter(|(bytes, _)| *bytes > free) {
        findings.problem(
            "space",
            format!("{} are free, a commit to {} may need {}", mib(free), names.join(", "), mib(*bytes)),
            format!("free some space where {} is: the commit would be refused", patient.layout.root().display()),
        );
    }
    if !findings.has_problem("space") {
        findings.ok("space", format!("{} are free, enough for a commit of each cluster here", mib(free)));
    }
}

/// The roots of the commit that each cluster's instances here run, by cluster; what can't be read is a finding.
async fn roots(findings: &mut Findings, patient: &Patient<'_>) -> BTreeMap<String, BTreeSet<Hash>> {
    let mut found: BTreeMap<String, BTreeSet<Hash>> = BTreeMap::new();
    let Some(store) = &patient.store else { return found };
    for local in &patient.instances {
        let read = async {
            let Some(commit) = store.instance(&local.instance_id).await?.and_then(|i| i.current_commit) else {
                return Ok(Vec::new());
            };
            let Some(record) = store.commit_record(&commit).await? else {
                return Err(ApiError::internal("find its commit", format!("the store has no {commit}")));
            };
            let commit = Commit::decode(&record.bytes).map_err(|e| ApiError::internal("read a commit", chain(&e)))?;
            Ok(commit.artifacts.iter().map(|artifact| artifact.root).collect())
        };
        match read.await {
            Ok(roots) => found.entry(local.cluster_id.clone()).or_default().extend(roots),
            Err(error) => findings.failed("bases", &error, "bring the state store back"),
        }
    }
    found
}

/// Without a base a commit is right all the same, and sent in full.
pub(super) async fn bases(findings: &mut Findings, patient: &Patient<'_>) {
    // Which there should be is read there.
    if findings.has_problem("store") {
        return;
    }
    let (mut there, mut missing) = (0, 0);
    for (cluster, roots) in roots(findings, patient).await {
        for root in roots {
            match bases::open(patient.layout, &cluster, root) {
                Some(_) => there += 1,
                None => {
                    missing += 1;
                    findings.note(
                        "bases",
                        format!("the base image {root} of cluster {cluster} is missing, in use, or has no manifest"),
                        "nothing has to be done: the next commit brings this image in full",
                    );
                }
            }
        }
    }
    if missing == 0 {
        findings.ok("bases", format!("{there} base images are there (--verify reads them)"));
    }
}

/// Reads every base in full.
pub(super) async fn verify(findings: &mut Findings, patient: &Patient<'_>) {
    let (mut good, mut bytes) = (0, 0);
    for (cluster, roots) in roots(&mut Findings::default(), patient).await {
        for root in roots {
            let (layout, of) = (patient.layout.clone(), cluster.clone());
            let checked = blocking("read a base", move || {
                let Some(base) = bases::open(&layout, &of, root) else { return Ok(None) };
                let file = File::open(&base.path).map_err(|e| ApiError::io("open", &base.path, &e))?;
                let verdict = form_delta::verify_image(&file, &base.manifest).map_err(|e| chain(&e));
                Ok(Some((base.path, base.manifest.image_len_bytes(), verdict)))
            });
            match checked.await {
                Ok(None) => {}
                Ok(Some((_, len, Ok(())))) => (good, bytes) = (good + 1, bytes + len),
                Ok(Some((path, _, Err(why)))) => findings.problem(
                    "bases",
                    format!("{} is damaged: {why}", path.display()),
                    "end the node, remove that file, run it again: the next commit brings the image in full. Then look at the disk: \
                     it gave back other bytes than were written",
                ),
                Err(error) => findings.failed("bases", &error, "look at the disk"),
            }
        }
    }
    if !findings.has_problem("bases") {
        findings.ok("bases", format!("{good} base images were read in full and are right, {}", mib(bytes)));
    }
}

/// Directories that belong to no attempt and no VM. A node that starts removes them.
pub(super) fn leftovers(findings: &mut Findings, patient: &Patient<'_>) {
    let mut left: Vec<PathBuf> = Vec::new();
    let mut attempts: BTreeSet<String> = patient.participants.iter().map(|p| p.attempt_id.clone()).collect();
    if let Some(node) = patient.node {
        attempts.extend(node.attempts_in_flight().iter().map(|attempt| attempt.hex().to_owned()));
    }
    // A target that is building has no durable record yet, and a seeding never has: what is new is not left over.
    let is_old = |path: &Path| patient.node.is_none_or(|node| node.is_idle()) && !is_recent(path);
    for name in names(&patient.layout.staging_root()) {
        let path = patient.layout.staging_root().join(&name);
        if !attempts.contains(&name) && (patient.node.is_none() || is_old(&path)) {
            left.push(path);
        }
    }
    for name in names(&patient.layout.instances()) {
        let Some(local) = patient.instances.iter().find(|local| local.instance_id == name) else {
            left.push(patient.layout.instance(&name));
            continue;
        };
        let incoming = patient.participants.iter().filter(|p| p.instance_id == name);
        let mut lives: BTreeSet<String> = incoming.filter_map(super::incoming).collect();
        lives.insert(local.live.clone());
        let dirs = names(&patient.layout.instance(&name)).into_iter().filter(|live| !lives.contains(live));
        let dirs = dirs.map(|live| patient.layout.live(&name, &live));
        left.extend(dirs.filter(|path| patient.node.is_none() || is_old(path)));
    }
    match left.is_empty() {
        true => findings.ok("leftovers", "nothing lies about"),
        false => left.iter().for_each(|path| {
            findings.note(
                "leftovers",
                format!("{} belongs to no attempt and no VM", path.display()),
                "the next start of the node removes it",
            );
        }),
    }
}

/// Written to within the last ten minutes.
fn is_recent(path: &Path) -> bool {
    let age = std::fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_none_or(|age| age.as_secs() < 600)
}
