//! A copy of the repository's files, as they are in the work tree.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Makes `to` hold what belongs to the repository. What is there already and equal is left alone, so that nothing is
/// compiled again that did not change.
pub(crate) fn tree(root: &Path, to: &Path) -> Result<(), String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git: {e}"))?;
    if !listed.status.success() {
        return Err(String::from_utf8_lossy(&listed.stderr).into_owned());
    }
    let names = String::from_utf8(listed.stdout).map_err(|e| format!("git: {e}"))?;
    let names: BTreeSet<&str> = names.split_terminator('\0').filter(|name| root.join(name).is_file()).collect();
    for name in &names {
        let (from, to) = (root.join(name), to.join(name));
        let failed = |e: std::io::Error| format!("copy {name}: {e}");
        let bytes = std::fs::read(&from).map_err(failed)?;
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        std::fs::copy(&from, &to).map_err(failed)?;
    }
    remove_others(to, to, &names)
}

/// What was in the repository at an earlier time would be compiled with the rest.
fn remove_others(dir: &Path, tree: &Path, names: &BTreeSet<&str>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("look into {}: {e}", dir.display());
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.strip_prefix(tree).ok().and_then(Path::to_str).unwrap_or_default();
        if path.is_dir() {
            remove_others(&path, tree, names)?;
        } else if !names.contains(name) {
            std::fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}
