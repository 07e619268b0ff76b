//! The demo's flow with walls between the nodes: none sees another's files, and what crosses the wire is counted by the
//! kernel as well. Promises 1 to 3 on a good day.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use form_node::api::types::{CommitSummary, TargetSummary};
use form_tests::{Assets, Cluster, Guest, Marks, Network, NodeOptions, Result, Scene};

const NODES: usize = 3;
/// Where the counter starts: nothing else in the guest counts there.
const COUNTER_START: u64 = 1_234_000_000;
/// More than it can count while a test runs.
const COUNTER_MOST: u64 = 1_000_000;
/// Ethernet, IPv4 and UDP headers of one datagram.
const OVERHEAD_BYTES: u64 = 14 + 20 + 8;
/// What else may arrive at an interface around a commit: ARP, keep-alives, the last acknowledgements.
const SLACK_BYTES: u64 = 16 << 10;

#[test]
fn three_guests_become_one_and_go_on() -> Result<()> {
    let assets = Assets::find()?;
    let scene = Scene::new()?;
    let network = Network::new(&scene, NODES)?;
    let plan = (0..NODES).map(|number| options(&scene, &network, &assets, number)).collect::<Result<_>>()?;
    let (mnemonic, _) = form_tests::Form::new(assets.form.clone(), None).new_account()?;
    let cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    let mut guests = cluster.boot_all("demo", NODES)?;
    walls_stand(&network, &cluster)?;
    let boot_ids = guests.iter_mut().map(Guest::boot_id).collect::<Result<Vec<_>>>()?;
    assert!(boot_ids[0] != boot_ids[1] && boot_ids[1] != boot_ids[2] && boot_ids[0] != boot_ids[2]);
    let origin = cluster.form(1).instance("demo-1")?.snapshot_id;
    assert!(origin.is_some(), "the others were made from a commit of demo-1");

    let first = commit_from(0, &mut guests, &cluster, &network, &boot_ids[0])?;
    assert_eq!(first.parent, origin);
    let second = commit_from(2, &mut guests, &cluster, &network, &boot_ids[0])?;
    assert_eq!(second.parent.as_ref(), Some(&first.snapshot_id));

    for name in ["demo-1", "demo-2", "demo-3"] {
        let instance = cluster.form(2).instance(name)?;
        assert_eq!(instance.snapshot_id.as_ref(), Some(&second.snapshot_id), "{name}");
        assert_eq!(instance.attempt_id, None, "{name}");
        let history: Vec<&str> = instance.snapshots.iter().map(|snapshot| snapshot.snapshot_id.as_str()).collect();
        assert!(history.ends_with(&[&first.snapshot_id, &second.snapshot_id]), "{name}: {history:?}");
    }
    cluster.shut_down()
}

/// A room of its own for each node: the other nodes' directories are hidden, and on all but the first the disk that the
/// first instance is made from: what they run has come over the wire.
fn options(scene: &Scene, network: &Network, assets: &Assets, number: usize) -> Result<NodeOptions> {
    let room = network.room(number)?;
    for other in (0..NODES).filter(|other| *other != number) {
        let dir = data_dir(scene, other);
        std::fs::create_dir_all(&dir).expect("a directory in the scene");
        room.hide(&dir)?;
    }
    if number > 0 {
        room.hide(&assets.disk)?;
    }
    let api = "127.0.0.1:3002".parse().expect("an address");
    Ok(NodeOptions { room: Some(room), api, quic: Network::quic(number), qemu: None })
}

fn data_dir(scene: &Scene, number: usize) -> PathBuf {
    scene.dir().join(format!("n{}", number + 1))
}

/// The walls are looked at from inside, once there is something to see.
fn walls_stand(network: &Network, cluster: &Cluster) -> Result<()> {
    for number in 0..NODES {
        let room = network.room(number)?;
        for dir in 0..NODES {
            let seen = room.run("ls", &["-A", &data_dir(cluster.scene(), dir).to_string_lossy()])?;
            assert_eq!(seen.is_empty(), dir != number, "node {number} sees {dir}: {seen}");
        }
    }
    Ok(())
}

/// Changes guest `source`, commits from there, and looks at all of them.
fn commit_from(
    source: usize,
    guests: &mut [Guest],
    cluster: &Cluster,
    network: &Network,
    boot_id: &str,
) -> Result<CommitSummary> {
    let name = guests[source].name().to_owned();
    let before = Marks::make(&mut guests[source], &format!("changed on {name}"), COUNTER_START)?;
    let counters = |number| network.received_bytes(number);
    let counted = (0..NODES).map(counters).collect::<Result<Vec<u64>>>()?;
    let summary = cluster.form(source + 1).commit(&name, &format!("from {name}"))?;
    let counted_after = (0..NODES).map(counters).collect::<Result<Vec<u64>>>()?;

    assert_eq!(summary.source, name);
    assert!(summary.pause_ns > 0);
    // QEMU knows where the disk was written to: during the pause the memory is compared, and little of the disk.
    let (read, [memory, disk]) = (summary.paused_read_bytes, live_allocated_bytes(cluster, source));
    assert!(read < memory + disk / 8, "read {read} bytes during the pause, of {memory} of memory and {disk} of disk");
    assert_eq!(summary.artifacts.len(), 3, "memory, device state and one disk");
    assert_eq!(summary.targets.len(), NODES - 1);
    for (number, guest) in guests.iter_mut().enumerate() {
        if number != source {
            let target =
                summary.targets.iter().find(|target| target.instance == guest.name()).expect("each is a target");
            sent_is_what_arrived(target, counted_after[number] - counted[number]);
            staged_is_what_was_captured(&summary, target);
            assert!(target.downtime_ns > 0, "{target:?}");
            guest.attach()?;
        }
        Marks::read(guest)?.continue_from(&before, COUNTER_MOST)?;
        Marks::counts_on(guest)?;
        assert_eq!(guest.boot_id()?, boot_id, "{} was restored, not rebooted", guest.name());
    }
    Ok(summary)
}

/// What the memory and the disk of a node's one instance take.
fn live_allocated_bytes(cluster: &Cluster, number: usize) -> [u64; 2] {
    let only = |dir: PathBuf| {
        let mut entries = std::fs::read_dir(dir).expect("a directory of the node");
        entries.next().expect("its one entry").expect("its one entry").path()
    };
    let live = only(only(cluster.node_ref(number + 1).data().join("instances")));
    ["memory.img", "root.img"].map(|name| live.join(name).metadata().expect("an image").blocks() * 512)
}

/// What the source says it sent, and what the target's interface received. The interface counts headers; a batch of
/// segments (GSO) may have one for all.
fn sent_is_what_arrived(target: &TargetSummary, arrived: u64) {
    let sent = target.sent_bytes;
    assert!(target.sent_datagrams > 0 && sent > 0, "{target:?}");
    assert!(sent <= arrived, "{}: reported {sent}, arrived {arrived}", target.instance);
    let most = sent + target.sent_datagrams * OVERHEAD_BYTES + SLACK_BYTES;
    assert!(arrived <= most, "{}: reported {sent}, arrived {arrived}, explained {most}", target.instance);
}

fn staged_is_what_was_captured(summary: &CommitSummary, target: &TargetSummary) {
    assert_eq!(target.staged_roots.len(), summary.artifacts.len());
    for artifact in &summary.artifacts {
        assert_eq!(
            target.staged_roots.get(&artifact.name),
            Some(&artifact.root),
            "{} {}",
            target.instance,
            artifact.name
        );
    }
}
