//! The device state of guest 3 is damaged on purpose. QEMU can't make sense of what is cut short; a flipped byte it would
//! take, so that one is found before anything is restored. Nobody is moved, each guest goes on as what it was (promises 1,
//! 3 and 4), and the next commit succeeds.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use form_node::ErrorCode;
use form_node::api::types::AttemptEvent;
use form_tests::{Assets, Cluster, Commit, FaultyQemu, Form, Guest, Marks, NodeOptions, Result, Scene};

const COUNTER_START: u64 = 99_000_000;
const COUNTER_MOST: u64 = 1_000_000;

const PATIENCE: Duration = Duration::from_secs(120);

/// What each guest is: its boot, and what it keeps.
type Before = Vec<(String, Marks)>;

fn nobody_has_moved(
    cluster: &Cluster,
    form: &Form,
    guests: &mut [Guest],
    before: &Before,
    head: &Option<String>,
) -> Result<()> {
    for (guest, (boot_id, marks)) in guests.iter_mut().zip(before) {
        guest.attach()?;
        assert_eq!(&guest.boot_id()?, boot_id, "{}", guest.name());
        Marks::read(guest)?.continue_from(marks, COUNTER_MOST)?;
        Marks::counts_on(guest)?;
        let instance = form.instance(guest.name())?;
        assert_eq!((instance.snapshot_id, instance.attempt_id), (head.clone(), None), "{}", guest.name());
    }
    for number in 1..=3 {
        let staging = cluster.node_ref(number).data().join("staging");
        let left: Vec<_> = std::fs::read_dir(staging).map_or_else(|_| Vec::new(), |dir| dir.flatten().collect());
        assert!(left.is_empty(), "a failed commit leaves no residue: {left:?}");
    }
    Ok(())
}

/// One byte in the middle of what a node has staged of its one instance's device state.
fn flip_a_byte_of_the_device_state(data: &Path) {
    let below = |dir: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
        entries.collect()
    };
    let attempts = below(&data.join("staging"));
    let [attempt] = attempts.as_slice() else { panic!("{attempts:?}") };
    let instances = below(attempt);
    let [instance] = instances.as_slice() else { panic!("{instances:?}") };
    let image = std::fs::File::options().read(true).write(true).open(instance.join("device.img")).expect("open");
    let (at, mut byte) = (image.metadata().expect("length").len() / 2, [0]);
    image.read_exact_at(&mut byte, at).expect("read");
    image.write_all_at(&[byte[0] ^ 0x10], at).expect("write");
}

#[test]
fn promise_3_and_4_a_device_state_that_is_damaged_moves_nobody() -> Result<()> {
    let assets = Assets::find()?;
    let scene = Scene::new()?;
    let qemu = FaultyQemu::new(&scene, "q3")?;
    let mut plan = (0..3).map(|_| NodeOptions::local()).collect::<Result<Vec<_>>>()?;
    plan[2].qemu = Some(qemu.program());
    let (mnemonic, _) = Form::new(assets.form.clone(), None).new_account()?;
    let mut cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    let mut guests = cluster.boot_all("demo", 3)?;
    let form = cluster.form(1);
    let origin = form.instance("demo-1")?.snapshot_id;

    // Each guest is somebody: its own boot, its own file, its own counter.
    let mut before = Before::new();
    for (number, guest) in guests.iter_mut().enumerate() {
        let marks =
            Marks::make(guest, &format!("I am {}", guest.name().to_owned()), COUNTER_START * (number as u64 + 1))?;
        before.push((guest.boot_id()?, marks));
    }

    qemu.damage_device_state(cluster.node(3).data())?;
    let refusal = form.refused(&["manage", "commit", "--name", "demo-1", "--description", "will fail"])?;
    assert_eq!(refusal.error.code, ErrorCode::Aborted, "{refusal:?}");
    assert_eq!(refusal.exit_code, 8, "{refusal:?}");
    assert!(format!("{:?}", refusal.error).contains("demo-3"), "it names who failed: {refusal:?}");
    assert_eq!(qemu.damaged().len(), 1, "it failed for the reason that it was given");

    nobody_has_moved(&cluster, &form, &mut guests, &before, &origin)?;

    qemu.behave()?;
    // A byte that flips after guest 3's node has verified what it staged, and before it restores: that waits for node 2.
    let restores = qemu.restores();
    let mut commit = Commit::begin(&form, "demo-1", "will not fit", &[])?;
    assert!(commit.wait_for("warm", PATIENCE));
    cluster.node(2).freeze()?;
    assert!(commit.wait_for_target("demo-3", "ready", PATIENCE));
    flip_a_byte_of_the_device_state(cluster.node(3).data());
    cluster.node(2).thaw()?;
    let ended = commit.end(PATIENCE)?;
    assert_eq!(ended.exit_code, Some(8), "{ended:?}");
    let error = ended.events.iter().find_map(|event| match event {
        AttemptEvent::Failed { error } => Some(format!("{error:?}")),
        _ => None,
    });
    let error = error.expect("a reason");
    assert!(error.contains("demo-3") && error.contains("device"), "it names what is damaged: {error}");
    assert_eq!(qemu.restores(), restores, "it is never given to QEMU");
    nobody_has_moved(&cluster, &form, &mut guests, &before, &origin)?;

    let before = Marks::read(&mut guests[0])?;
    let boot_id = guests[0].boot_id()?;
    let summary = form.commit("demo-1", "will not fail")?;
    assert_eq!(summary.parent, origin);
    for guest in &mut guests {
        guest.attach()?;
        Marks::read(guest)?.continue_from(&before, COUNTER_MOST)?;
        assert_eq!(guest.boot_id()?, boot_id, "{}", guest.name());
        assert_eq!(form.instance(guest.name())?.snapshot_id.as_ref(), Some(&summary.snapshot_id));
    }
    drop(guests);
    cluster.shut_down()
}
