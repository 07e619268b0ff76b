//! Whole commits of machines that are only files, between three real nodes: what arrives is what was there, by hash; and
//! what drives such a machine is run as often as it must.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use form_node::ErrorCode;
use form_node::api::types::{CommitSummary, Created};
use form_tests::{Assets, Cluster, NodeOptions, Result, Scene};
use sha2::{Digest, Sha256};

const NODES: usize = 3;
const DISK_BYTES: u64 = 16 << 20;
const MEMORY_BYTES: u64 = 4 << 20;
const BLOCK: usize = 4096;
/// Records, hashes and frame headers beside the blocks that are new.
const SLACK_BYTES: u64 = 2048;

/// Notes what it is called for; fails once for each file `fail-<word>`, writes where it should not for `write-<word>`.
const DRIVE: &str = r#"#!/bin/sh
top=$(dirname "$0")/..
echo "$1" >> "$top/calls"
[ -e "$FORM_DIR/root.img" ] || exit 1
rm "$top/write-$1" 2> /dev/null && echo x >> root.img
rm "$top/fail-$1" 2> /dev/null && { echo "no $1 today" >&2; exit 1; }
exit 0
"#;

fn start(scene: Scene) -> Result<Cluster> {
    let plan = (0..NODES).map(|_| NodeOptions::local()).collect::<Result<_>>()?;
    let assets = Assets::without_guest()?;
    let (mnemonic, _) = form_tests::Form::new(assets.form.clone(), None).new_account()?;
    let cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    for number in 1..=NODES {
        let drive = cluster.node_ref(number).data().join("commands/drive");
        fs::write(&drive, DRIVE).expect("write");
        fs::set_permissions(&drive, fs::Permissions::from_mode(0o700)).expect("chmod");
    }
    Ok(cluster)
}

/// Instances `f-1` … of one cluster, one on each node, all started.
fn create(cluster: &Cluster, spec: &str) -> Result<()> {
    let path = cluster.scene().dir().join("files.toml");
    fs::write(&path, spec).expect("write");
    for number in 1..=NODES {
        let name = format!("f-{number}");
        let created: Created = match number {
            1 => cluster.form(1).json(&["manage", "create", "--name", &name, "--spec", &path.to_string_lossy()])?,
            _ => cluster.create_like(number, &name, "f-1")?,
        };
        assert_eq!(created.snapshot_id.is_some(), number > 1, "those that join have a commit");
        let _: serde_json::Value = cluster.form(number).json(&["manage", "start", "--name", &name])?;
    }
    Ok(())
}

/// A block that no other seed makes.
fn noise(seed: u64) -> Vec<u8> {
    (0..BLOCK as u64 / 32).flat_map(|n| Sha256::digest([seed.to_le_bytes(), n.to_le_bytes()].concat())).collect()
}

/// A sparse file with some blocks of noise.
fn template(cluster: &Cluster, name: &str, len_bytes: u64) -> PathBuf {
    let path = cluster.scene().dir().join(name);
    let file = fs::File::create(&path).expect("create");
    file.set_len(len_bytes).expect("set length");
    for block in 0..64 {
        file.write_all_at(&noise(block), block * 7 * BLOCK as u64).expect("write");
    }
    path
}

fn live(cluster: &Cluster, number: usize, artifact: &str) -> PathBuf {
    cluster.node_ref(number).data().join(format!("live/f-{number}/{artifact}.img"))
}

fn poke(cluster: &Cluster, number: usize, artifact: &str, block: u64, seed: u64) {
    let file = fs::File::options().write(true).open(live(cluster, number, artifact)).expect("open");
    file.write_all_at(&noise(seed), block * BLOCK as u64).expect("write");
}

fn hash(path: PathBuf) -> String {
    hex::encode(Sha256::digest(fs::read(path).expect("read")))
}

/// Every instance has the same images as `source` had when it was committed.
fn same_everywhere(cluster: &Cluster, artifacts: &[&str], before: &[String]) {
    for number in 1..=NODES {
        let now: Vec<_> = artifacts.iter().map(|artifact| hash(live(cluster, number, artifact))).collect();
        assert_eq!(now, before, "f-{number}");
    }
}

/// Commits from `f-<source>`; afterwards all have its images, and what was sent is about what is new.
fn commit(cluster: &Cluster, source: usize, artifacts: &[&str], new_blocks: u64) -> Result<CommitSummary> {
    let before: Vec<_> = artifacts.iter().map(|artifact| hash(live(cluster, source, artifact))).collect();
    let summary = cluster.form(source).commit(&format!("f-{source}"), "files")?;
    same_everywhere(cluster, artifacts, &before);
    let names: Vec<_> = summary.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, artifacts, "no memory and no device state where there is none");
    let sent: u64 = summary.artifacts.iter().map(|artifact| artifact.delta_bytes).sum();
    let new = new_blocks * BLOCK as u64;
    assert!((new..=new + SLACK_BYTES * artifacts.len() as u64).contains(&sent), "{new} new bytes took {sent}");
    assert_eq!(summary.targets.len(), NODES - 1);
    for target in &summary.targets {
        for artifact in &summary.artifacts {
            assert_eq!(target.staged_roots.get(&artifact.name), Some(&artifact.root), "{}", target.instance);
        }
    }
    Ok(summary)
}

/// The commands that a node has run since it was asked last.
fn calls(cluster: &Cluster, number: usize) -> Vec<String> {
    let path = cluster.node_ref(number).data().join("calls");
    let calls = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path); // there may be none
    calls.lines().map(str::to_owned).collect()
}

#[test]
fn disks_alone_are_committed_from_any_of_them() -> Result<()> {
    let mut cluster = start(Scene::new()?)?;
    let disk = template(&cluster, "root.raw", DISK_BYTES);
    create(&cluster, &format!("vmm = \"files\"\n[[disk]]\nname = \"root\"\npath = {disk:?}\n"))?;
    let template_hash = hash(disk.clone());
    same_everywhere(&cluster, &["root"], std::slice::from_ref(&template_hash));

    poke(&cluster, 1, "root", 3, 1001);
    poke(&cluster, 1, "root", 4000, 1002);
    // What a target did on its own since is replaced.
    poke(&cluster, 3, "root", 5, 1003);
    let first = commit(&cluster, 1, &["root"], 2)?;

    // A node that was restarted finds its files as they were.
    cluster.node(2).stop()?;
    poke(&cluster, 2, "root", 100, 1004);
    cluster.node(2).start()?;
    let second = commit(&cluster, 2, &["root"], 1)?;
    assert_eq!(second.parent.as_ref(), Some(&first.snapshot_id));
    assert!(second.pause_ns > 0);

    // A target whose file has grown does not fit, and nobody has moved.
    let grown = fs::File::options().write(true).open(live(&cluster, 3, "root")).expect("open");
    grown.set_len(DISK_BYTES + BLOCK as u64).expect("set length");
    let refusal = cluster.form(1).refused(&["manage", "commit", "--name", "f-1"])?;
    assert_eq!(refusal.error.code, ErrorCode::TargetUnfit, "{refusal:?}");
    grown.set_len(DISK_BYTES).expect("set length");
    commit(&cluster, 1, &["root"], 0)?;
    assert_eq!(hash(disk), template_hash, "the template is never written");
    let console = cluster.form(1).refused(&["manage", "console", "--name", "f-1"])?;
    assert_eq!(console.error.code, ErrorCode::Unsupported, "{console:?}");
    cluster.shut_down()
}

#[test]
fn promise_2_commands_run_once_each_and_resume_on_every_way_out() -> Result<()> {
    let cluster = start(Scene::new()?)?;
    let (disk, memory) = (template(&cluster, "root.raw", DISK_BYTES), template(&cluster, "ram", MEMORY_BYTES));
    let mut spec = format!("vmm = \"files\"\nmemory_path = {memory:?}\n[[disk]]\nname = \"root\"\npath = {disk:?}\n");
    spec.push_str("[commands]\ntimeout_s = 60\n");
    for word in ["pause", "resume", "start", "stop"] {
        spec.push_str(&format!("{word} = [\"drive\", \"{word}\"]\n"));
    }
    create(&cluster, &spec)?;
    // The one that was there first was committed when the second joined.
    assert_eq!(calls(&cluster, 1), ["start", "pause", "resume"]);
    assert_eq!((calls(&cluster, 2), calls(&cluster, 3)), (vec!["start".into()], vec!["start".into()]));

    poke(&cluster, 1, "memory", 9, 2001);
    poke(&cluster, 1, "root", 9, 2002);
    let first = commit(&cluster, 1, &["memory", "root"], 2)?;
    assert_eq!(calls(&cluster, 1), ["pause", "resume"]);
    for number in 2..=NODES {
        assert_eq!(calls(&cluster, number), ["pause", "start", "stop"], "f-{number}");
    }

    // A capture that fails.
    let fail = |number: usize, word: &str| {
        fs::File::create(cluster.node_ref(number).data().join(format!("fail-{word}")))
            .and_then(|mut file| file.write_all(b"once"))
            .expect("write");
    };
    poke(&cluster, 2, "memory", 10, 2003);
    fail(2, "pause");
    let refusal = cluster.form(2).refused(&["manage", "commit", "--name", "f-2"])?;
    assert!(format!("{:?}", refusal.error).contains("no pause today"), "{refusal:?}");
    assert_eq!(calls(&cluster, 2), ["pause", "resume"]);
    // One that can't be resumed at once: what was captured is not used.
    fail(2, "resume");
    let refusal = cluster.form(2).refused(&["manage", "commit", "--name", "f-2"])?;
    assert_eq!(refusal.error.code, ErrorCode::Aborted, "{refusal:?}");
    assert_eq!(calls(&cluster, 2), ["pause", "resume", "resume"]);
    // A target that can't be paused: it goes on, and so does everybody.
    fail(3, "pause");
    cluster.form(2).refused(&["manage", "commit", "--name", "f-2"])?;
    assert_eq!(
        (calls(&cluster, 2), calls(&cluster, 3)),
        (["pause", "resume"].map(String::from).to_vec(), ["pause", "resume"].map(String::from).to_vec())
    );
    assert_eq!(cluster.form(1).instance("f-3")?.snapshot_id.as_ref(), Some(&first.snapshot_id));
    calls(&cluster, 1);

    commit(&cluster, 2, &["memory", "root"], 1)?;
    assert_eq!(calls(&cluster, 2), ["pause", "resume"]);
    assert_eq!(
        (calls(&cluster, 1), calls(&cluster, 3)),
        (["pause", "start", "stop"].map(String::from).to_vec(), ["pause", "start", "stop"].map(String::from).to_vec())
    );
    let data: Vec<_> = (1..=NODES).map(|number| cluster.node_ref(number).data().to_owned()).collect();
    let _: serde_json::Value = cluster.form(1).json(&["manage", "stop", "--name", "f-1"])?;
    assert_eq!(
        (calls(&cluster, 1), fs::read_dir(data[0].join("live")).expect("read").count()),
        (vec!["stop".into()], 0)
    );
    cluster.shut_down()
}

/// Files are looked at before they take the old ones' place, by whoever leaves them as they are.
#[test]
fn rule_16_files_that_are_not_well_move_nobody() -> Result<()> {
    let cluster = start(Scene::new()?)?;
    let disk = template(&cluster, "root.raw", DISK_BYTES);
    let mut spec = format!("vmm = \"files\"\n[[disk]]\nname = \"root\"\npath = {disk:?}\n");
    spec.push_str("[health]\ncommand = [\"drive\", \"health\"]\n[commands]\n");
    for word in ["pause", "resume", "start", "stop"] {
        spec.push_str(&format!("{word} = [\"drive\", \"{word}\"]\n"));
    }
    create(&cluster, &spec)?;
    (1..=NODES).for_each(|number| drop(calls(&cluster, number)));
    let next = |number: usize, what: &str| {
        fs::write(cluster.node_ref(number).data().join(what), "once").expect("write");
    };

    poke(&cluster, 1, "root", 3, 3001);
    commit(&cluster, 1, &["root"], 1)?;
    assert_eq!(calls(&cluster, 1), ["pause", "resume"]);
    for number in 2..=NODES {
        assert_eq!(calls(&cluster, number), ["pause", "health", "start", "stop"], "f-{number}");
    }

    let before: Vec<_> = (1..=NODES).map(|number| hash(live(&cluster, number, "root"))).collect();
    poke(&cluster, 1, "root", 4, 3002);
    next(2, "fail-health");
    let refusal = cluster.form(1).refused(&["manage", "commit", "--name", "f-1"])?;
    for part in ["target f-2", "health probe", "no health today"] {
        assert!(format!("{:?}", refusal.error).contains(part), "{part:?}: {refusal:?}");
    }
    assert_eq!(calls(&cluster, 2), ["pause", "health", "resume"]);
    // One that writes to what it was to look at.
    next(3, "write-health");
    let refusal = cluster.form(1).refused(&["manage", "commit", "--name", "f-1"])?;
    assert!(format!("{:?}", refusal.error).contains("was changed after it had been verified"), "{refusal:?}");
    for number in 2..=NODES {
        assert_eq!(hash(live(&cluster, number, "root")), before[number - 1], "f-{number}");
    }
    commit(&cluster, 1, &["root"], 1)?;
    cluster.shut_down()
}
