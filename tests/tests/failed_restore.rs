//! A restore that fails on guest 3, its device state damaged on purpose: nobody is moved, and the next commit succeeds
//! (promise 1, and half of 4).

use form_node::ErrorCode;
use form_tests::{Assets, Cluster, FaultyQemu, Marks, NodeOptions, Result, Scene};

const COUNTER_START: u64 = 99_000_000;
const COUNTER_MOST: u64 = 1_000_000;

#[test]
fn a_restore_that_fails_moves_nobody_and_the_next_commit_succeeds() -> Result<()> {
    let assets = Assets::find()?;
    let scene = Scene::new()?;
    let qemu = FaultyQemu::new(&scene, "q3")?;
    let mut plan = (0..3).map(|_| NodeOptions::local()).collect::<Result<Vec<_>>>()?;
    plan[2].qemu = Some(qemu.program());
    let (mnemonic, _) = form_tests::Form::new(assets.form.clone(), None).new_account()?;
    let mut cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    let mut guests = cluster.boot_all("demo", 3)?;
    let form = cluster.form(1);
    let origin = form.instance("demo-1")?.snapshot_id;

    // Each guest is somebody: its own boot, its own file, its own counter.
    let mut before = Vec::new();
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

    for (guest, (boot_id, marks)) in guests.iter_mut().zip(&before) {
        guest.attach()?;
        assert_eq!(&guest.boot_id()?, boot_id, "{}", guest.name());
        Marks::read(guest)?.continue_from(marks, COUNTER_MOST)?;
        Marks::counts_on(guest)?;
        let instance = form.instance(guest.name())?;
        assert_eq!((instance.snapshot_id, instance.attempt_id), (origin.clone(), None), "{}", guest.name());
    }
    for number in 1..=3 {
        let staging = cluster.node(number).data().join("staging");
        let left: Vec<_> = std::fs::read_dir(staging).map_or_else(|_| Vec::new(), |dir| dir.flatten().collect());
        assert!(left.is_empty(), "a failed commit leaves no residue: {left:?}");
    }

    qemu.behave()?;
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
