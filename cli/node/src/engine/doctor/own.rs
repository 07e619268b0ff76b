//! What the node alone has: settings, key, lock, database.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use form_transport::NodeKey;

use super::Findings;
use crate::config::NodeConfig;
use crate::engine::build::chain;
use crate::engine::db::NodeDb;
use crate::engine::layout::Layout;
use crate::engine::run;
use crate::error::ErrorCode;

pub(super) fn settings(findings: &mut Findings, config: &NodeConfig) {
    findings.ok("settings", format!("API {}, transport {}, store {}", config.api, config.quic, config.store));
}

/// The node's id, if its key is readable.
pub(super) fn key(findings: &mut Findings, layout: &Layout) -> Option<String> {
    let path = layout.key();
    let key = match NodeKey::load(&path) {
        Ok(key) => key.id().to_string(),
        Err(error) => {
            let remedy = "bring node.key back from a backup, for its owner alone (0600); without it the node is another node: \
                          delete its instances and make it anew";
            findings.problem("key", format!("{} can't be used: {}", path.display(), chain(&error)), remedy);
            return None;
        }
    };
    match std::fs::metadata(&path).map(|metadata| metadata.permissions().mode() & 0o077) {
        Ok(0) | Err(_) => findings.ok("key", format!("node {key}")),
        Ok(_) => findings.problem(
            "key",
            format!("others may read {}: whoever has it is this node", path.display()),
            format!("chmod 600 {}", path.display()),
        ),
    }
    Some(key)
}

/// Whether a process runs the node.
pub(super) fn lock(findings: &mut Findings, layout: &Layout) -> bool {
    if !layout.lock().exists() {
        findings.ok("lock", "the node does not run, and never did");
        return false;
    }
    match run::lock(layout) {
        Ok(_ours_for_a_moment) => {
            findings.ok("lock", "the node does not run");
            false
        }
        Err(error) if error.code == ErrorCode::WrongState => {
            let holder = holder(layout).map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
            findings.ok("lock", format!("{holder} runs the node"));
            true
        }
        Err(error) => {
            findings.failed("lock", &error, "run the doctor as the node's user");
            false
        }
    }
}

/// Who holds the lock, by the kernel's table: `1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF`, proc_locks(5).
fn holder(layout: &Layout) -> Option<u32> {
    let inode = std::fs::metadata(layout.lock()).ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let of_this_file = words.get(5)?.rsplit(':').next() == Some(&inode);
        if words.get(1) == Some(&"FLOCK") && of_this_file { words.get(4)?.parse().ok() } else { None }
    })
}

/// The node's database, if the node ever ran.
pub(super) fn db(findings: &mut Findings, layout: &Layout) -> Option<NodeDb> {
    // Opening would make it.
    if !layout.db().exists() {
        return None;
    }
    match NodeDb::open(&layout.db()) {
        Ok(db) => Some(db),
        Err(error) => {
            findings.failed("settings", &error, "bring node.db back from a backup: docs/operate.md");
            None
        }
    }
}
