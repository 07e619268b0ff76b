//! Recordings of writes: QEMU's dirty bitmaps on its disks' nodes.
//!
//! A bitmap can be read only while it does not record, so that each reading ends one and begins another, in one
//! transaction: QEMU drains the disks first, and a write that ends later is in the new one. It is not persistent (a raw
//! image has no place for it) and not kept in mind here either: QEMU is asked what there is.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Instant;

use serde_json::{Value, json};

use super::guest::Guest;
use super::nbd;
use super::rundir::NBD;
use crate::hints::{Cuts, Keep, Keeps, Mark, Written};
use crate::limits::HINT_TIMEOUT;
use crate::{Error, Result};

/// The smallest unit that images are compared in. A bit for each: 32 KiB of memory for each GiB of disk.
const GRANULARITY_BYTES: u64 = 4096;
/// The name under which QEMU finds the listening socket.
const DESCRIPTOR: &str = "nbd";

/// One bitmap, as QEMU describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bitmap {
    name: String,
    recording: bool,
    /// Nobody uses it, and it is not damaged.
    free: bool,
}

/// Ends and begins recordings, and says what was written; nothing of that may fail a capture.
pub(super) async fn cut(guest: &Guest, cuts: &Cuts) -> Written {
    if cuts.is_empty() {
        return Written::new();
    }
    let _alone = guest.recordings.lock().await;
    let begin = Instant::now();
    match try_cut(guest, cuts).await {
        Ok(written) => {
            let took_us = begin.elapsed().as_micros();
            tracing::debug!(machine = guest.name, asked = cuts.len(), known = written.len(), took_us, "hints");
            written
        }
        Err(error) => {
            tracing::warn!(machine = guest.name, %error, "no hints: disks are compared in full");
            Written::new()
        }
    }
}

async fn try_cut(guest: &Guest, cuts: &Cuts) -> Result<Written> {
    let there = bitmaps(guest).await?;
    let (mut actions, mut to_read) = (Vec::new(), Vec::new());
    for (disk, cut) in cuts {
        let Some(node) = guest.node_of(disk) else { continue };
        let own = there.get(&node).map_or(&[][..], Vec::as_slice);
        if find(own, &cut.next).is_some() {
            continue; // a mark is used once: this one has been
        }
        actions.push(add(&node, &cut.next));
        if let Some(since) = cut.since.as_ref().filter(|since| find(own, since).is_some_and(|b| b.recording && b.free))
        {
            actions.push(action("disable", &node, since));
            to_read.push((disk.clone(), node, since.clone()));
        }
    }
    transact(guest, actions).await?;
    if to_read.is_empty() {
        return Ok(Written::new());
    }
    let read = read(guest, &to_read).await;
    // Its end is QEMU's affair: an export that stays would be in the way of the next one, which begins with the same.
    stop_server(guest).await;
    guest.run.remove(NBD);
    read
}

/// Reads bitmaps that do not record, through a server on a socket of ours.
async fn read(guest: &Guest, which: &[(String, String, Mark)]) -> Result<Written> {
    stop_server(guest).await;
    let listener = guest.run.listen(NBD)?;
    let name = json!({ "fdname": DESCRIPTOR });
    guest.qmp.execute_within("getfd", name, Some(listener.as_fd()), HINT_TIMEOUT).await?;
    let address = json!({ "addr": { "type": "fd", "data": { "str": DESCRIPTOR } } });
    guest.qmp.execute_within("nbd-server-start", address, None, HINT_TIMEOUT).await?;
    drop(listener);
    let mut written = Written::new();
    for (disk, node, mark) in which {
        let export = json!({ "type": "nbd", "id": format!("form-{node}"), "node-name": node, "name": node,
                             "writable": false, "bitmaps": [mark.as_str()] });
        guest.qmp.execute_within("block-export-add", export, None, HINT_TIMEOUT).await?;
        let (stream, export) = (guest.run.connect(NBD)?, node.clone());
        let context = format!("qemu:dirty-bitmap:{mark}");
        let ranges = tokio::task::spawn_blocking(move || nbd::dirty(stream, &export, &context, HINT_TIMEOUT));
        let ranges: io::Result<Vec<Range<u64>>> = ranges.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        match ranges {
            Ok(ranges) => drop(written.insert(disk.clone(), ranges)),
            Err(error) => tracing::warn!(machine = guest.name, disk, %error, "its recording could not be read"),
        }
    }
    Ok(written)
}

/// Fine if there is none.
async fn stop_server(guest: &Guest) {
    let _ = guest.qmp.execute_within("nbd-server-stop", Value::Null, None, HINT_TIMEOUT).await;
}

/// Keeps one recording of each disk at most, and none that has a gap.
pub(super) async fn keep(guest: &Guest, keeps: &Keeps) {
    let _alone = guest.recordings.lock().await;
    stop_server(guest).await;
    let there = match bitmaps(guest).await {
        Ok(there) => there,
        Err(error) => return tracing::warn!(machine = guest.name, %error, "recordings are left as they are"),
    };
    for (disk, node) in guest.nodes() {
        let own = there.get(&node).map_or(&[][..], Vec::as_slice);
        let wanted = keeps.get(disk);
        let joined = wanted.and_then(|keep| join(&node, own, keep));
        if wanted.is_some() && joined.is_none() {
            tracing::info!(machine = guest.name, disk, "its recording has a gap, or there is none");
        }
        let done = transact(guest, joined.unwrap_or_else(|| forget(&node, own, None))).await;
        if let Err(error) = done {
            tracing::warn!(machine = guest.name, disk, %error, "recordings could not be joined");
            let _ = transact(guest, forget(&node, own, None)).await; // what is left has no name that is asked for
        }
    }
}

/// The actions that make one bitmap of a chain; `None` if a write may be missing in it.
fn join(node: &str, own: &[Bitmap], keep: &Keep) -> Option<Vec<Value>> {
    let found: Vec<Option<&Bitmap>> = keep.chain.iter().map(|mark| find(own, mark)).collect();
    let begun = found.iter().take_while(|bitmap| bitmap.is_some()).count();
    let parts: Vec<&Bitmap> = found.iter().flatten().copied().collect();
    // Each cut ends one and begins the next at once: so the last that was begun records, unless something else went wrong.
    if parts.len() != begun || !parts.last()?.recording || parts.iter().any(|bitmap| !bitmap.free) {
        return None;
    }
    let goes_on = keep.chain.first() == Some(&keep.kept);
    let first = match goes_on {
        true => action("enable", node, &keep.kept),
        false if find(own, &keep.kept).is_some() => return None,
        false => add(node, &keep.kept),
    };
    let sources: Vec<&str> =
        parts.iter().map(|bitmap| bitmap.name.as_str()).filter(|name| *name != keep.kept.as_str()).collect();
    let mut actions = vec![first];
    if !sources.is_empty() {
        let data = json!({ "node": node, "target": keep.kept.as_str(), "bitmaps": sources });
        actions.push(json!({ "type": "block-dirty-bitmap-merge", "data": data }));
    }
    actions.extend(forget(node, own, Some(&keep.kept)));
    Some(actions)
}

/// The actions that remove all of ours but one.
fn forget(node: &str, own: &[Bitmap], but: Option<&Mark>) -> Vec<Value> {
    let ours = own.iter().filter(|bitmap| bitmap.name.starts_with(Mark::PREFIX));
    let others = ours.filter(|bitmap| but.is_none_or(|but| bitmap.name != but.as_str()));
    let remove =
        |bitmap: &Bitmap| json!({ "type": "block-dirty-bitmap-remove", "data": { "node": node, "name": bitmap.name } });
    others.map(remove).collect()
}

fn find<'a>(own: &'a [Bitmap], mark: &Mark) -> Option<&'a Bitmap> {
    own.iter().find(|bitmap| bitmap.name == mark.as_str())
}

fn add(node: &str, mark: &Mark) -> Value {
    let data = json!({ "node": node, "name": mark.as_str(), "granularity": GRANULARITY_BYTES, "persistent": false });
    json!({ "type": "block-dirty-bitmap-add", "data": data })
}

fn action(what: &str, node: &str, mark: &Mark) -> Value {
    json!({ "type": format!("block-dirty-bitmap-{what}"), "data": { "node": node, "name": mark.as_str() } })
}

/// All of them, or none.
async fn transact(guest: &Guest, actions: Vec<Value>) -> Result<()> {
    if actions.is_empty() {
        return Ok(());
    }
    guest.qmp.execute_within("transaction", json!({ "actions": actions }), None, HINT_TIMEOUT).await.map(drop)
}

/// By node.
async fn bitmaps(guest: &Guest) -> Result<HashMap<String, Vec<Bitmap>>> {
    const COMMAND: &str = "query-named-block-nodes";
    let answer = guest.qmp.execute_within(COMMAND, json!({ "flat": true }), None, HINT_TIMEOUT).await?;
    let nodes = answer.as_array().ok_or_else(|| Error::Protocol {
        name: guest.name.clone(),
        command: COMMAND,
        problem: "it is no list".into(),
    })?;
    let flag = |bitmap: &Value, name: &str| bitmap.get(name).and_then(Value::as_bool);
    let bitmap = |value: &Value| {
        Some(Bitmap {
            name: value.get("name")?.as_str()?.to_owned(),
            recording: flag(value, "recording") == Some(true),
            free: flag(value, "busy") == Some(false) && flag(value, "inconsistent") != Some(true),
        })
    };
    let node = |node: &Value| {
        let bitmaps = node.get("dirty-bitmaps")?.as_array()?;
        Some((node.get("node-name")?.as_str()?.to_owned(), bitmaps.iter().filter_map(bitmap).collect()))
    };
    Ok(nodes.iter().filter_map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bitmap(name: &str, recording: bool) -> Bitmap {
        Bitmap { name: format!("form-{name}"), recording, free: true }
    }

    /// What a join does, as words.
    fn joined(own: &[Bitmap], kept: &str, chain: &[&str]) -> Option<Vec<String>> {
        let keep = Keep { kept: Mark::new(kept), chain: chain.iter().map(Mark::new).collect() };
        let word = |action: &Value| {
            let what = action["type"].as_str().unwrap().trim_start_matches("block-dirty-bitmap-").to_owned();
            let data = &action["data"];
            let object = data.get("name").or(data.get("target")).and_then(Value::as_str).unwrap();
            let sources = data.get("bitmaps").map(|list| format!(" from {list}")).unwrap_or_default();
            format!("{what} {object}{sources}")
        };
        join("disk0", own, &keep).map(|actions| actions.iter().map(word).collect())
    }

    #[test]
    fn after_a_commit_the_last_recording_gets_the_new_base_s_name() {
        let own = [bitmap("old", false), bitmap("warm", false), bitmap("pause", true)];
        let done = joined(&own, "new", &["pause"]).unwrap();
        let merge = r#"merge form-new from ["form-pause"]"#;
        assert_eq!(done, ["add form-new", merge, "remove form-old", "remove form-warm", "remove form-pause"]);
    }

    #[test]
    fn after_an_abort_all_is_merged_back() {
        let own = [bitmap("old", false), bitmap("warm", false), bitmap("pause", true)];
        let done = joined(&own, "old", &["old", "warm", "pause"]).unwrap();
        let merge = r#"merge form-old from ["form-warm","form-pause"]"#;
        assert_eq!(done, ["enable form-old", merge, "remove form-warm", "remove form-pause"]);
        // It ended before the pause, or before anything was cut.
        let own = [bitmap("old", false), bitmap("warm", true)];
        assert!(joined(&own, "old", &["old", "warm", "pause"]).is_some());
        assert_eq!(joined(&[bitmap("old", true)], "old", &["old", "warm", "pause"]).unwrap(), ["enable form-old"]);
    }

    #[test]
    fn a_chain_with_a_gap_is_none() {
        for own in [
            vec![],
            vec![bitmap("old", false)],
            vec![bitmap("old", false), bitmap("warm", false)],
            vec![bitmap("old", false), bitmap("pause", true)],
            vec![bitmap("warm", false), bitmap("pause", true)],
            vec![bitmap("old", false), bitmap("warm", false), Bitmap { free: false, ..bitmap("pause", true) }],
        ] {
            assert_eq!(joined(&own, "old", &["old", "warm", "pause"]), None, "{own:?}");
        }
        let twice = [bitmap("pause", true), bitmap("new", true)];
        assert_eq!(joined(&twice, "new", &["pause"]), None, "a mark is used once");
        assert_eq!(forget("disk0", &twice, None).len(), 2);
        let foreign = Bitmap { name: "backup".into(), recording: true, free: true };
        assert_eq!(forget("disk0", &[foreign], None).len(), 0, "somebody else's");
    }
}
