//! Real guests without memory for two VMs: the old one is saved and ended first (rule 23). Whoever goes back goes on where it
//! was, also when its node was killed meanwhile; and a commit succeeds.

use std::process::Stdio;

use form_node::ErrorCode;
use form_node::api::types::AttemptEvent;
use form_tests::{Assets, Cluster, Context, FaultyQemu, Form, Guest, Marks, NodeOptions, Result, Scene};

const COUNTER_START: u64 = 33_000_000;
const COUNTER_MOST: u64 = 10_000_000;

/// What each guest is: its boot, and what it keeps.
type Before = Vec<(String, Marks)>;

fn all_go_on(form: &Form, guests: &mut [Guest], before: &Before, head: &Option<String>) -> Result<()> {
    for (guest, (boot_id, marks)) in guests.iter_mut().zip(before) {
        guest.attach()?;
        assert_eq!(&guest.boot_id()?, boot_id, "{}: its memory was saved", guest.name());
        Marks::read(guest)?.continue_from(marks, COUNTER_MOST)?;
        Marks::counts_on(guest)?;
        assert_eq!(guest.run("cat /sys/class/net/eth0/carrier")?, "1", "{}", guest.name());
        assert_eq!(form.instance(guest.name())?.snapshot_id, *head, "{}", guest.name());
    }
    Ok(())
}

/// How many old VMs a node has saved.
fn saved(cluster: &Cluster, number: usize) -> usize {
    cluster.node_ref(number).log().matches("the old VM is saved, and its process ended").count()
}

#[test]
fn rule_23_a_guest_that_was_saved_goes_on_where_it_was() -> Result<()> {
    let assets = Assets::find()?;
    let spec = format!("way_back = \"saved\"\n{}", assets.spec());
    let scene = Scene::new()?;
    let qemu = FaultyQemu::new(&scene, "q3")?;
    let mut plan = (0..3).map(|_| NodeOptions::local()).collect::<Result<Vec<_>>>()?;
    plan[2].qemu = Some(qemu.program());
    let (mnemonic, _) = Form::new(assets.form.clone(), None).new_account()?;
    let mut cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    std::fs::write(cluster.scene().dir().join("guest.toml"), spec).context(|| "write the spec".into())?;
    let mut guests = cluster.boot_all("demo", 3)?;
    let form = cluster.form(1);
    let head = form.instance("demo-1")?.snapshot_id;
    let mut before = Before::new();
    for (guest, number) in guests.iter_mut().zip(1..) {
        let marks = Marks::make(guest, &format!("I am guest {number}"), COUNTER_START * number)?;
        before.push((guest.boot_id()?, marks));
    }

    // Guest 3 can't be restored, when guest 2 has been, or soon is.
    qemu.damage_device_state(cluster.node(3).data())?;
    let refusal = form.refused(&["manage", "commit", "--name", "demo-1", "--description", "will fail"])?;
    assert_eq!(refusal.error.code, ErrorCode::Aborted, "{refusal:?}");
    assert!(format!("{:?}", refusal.error).contains("demo-3"), "{refusal:?}");
    let warned = refusal.events.iter().filter_map(|event| match event {
        AttemptEvent::Warning { target, message } => Some((target.as_str(), message.contains("weaker"))),
        _ => None,
    });
    let mut warned: Vec<_> = warned.collect();
    warned.sort_unstable();
    assert_eq!(warned, [("demo-2", true), ("demo-3", true)]);
    all_go_on(&form, &mut guests, &before, &head)?;
    assert_eq!(saved(&cluster, 3), 1);

    // The node of guest 3 is killed when the old VM has ended and the new one is not there yet.
    qemu.behave()?;
    qemu.hold_restore()?;
    let mut commit = form.command(["manage", "commit", "--name", "demo-1", "--description", "cut short"]);
    commit.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut commit = commit.spawn().context(|| "begin a commit".into())?;
    qemu.wait_until_held()?;
    assert_eq!(saved(&cluster, 3), 2);
    cluster.node(3).kill()?;
    qemu.behave()?;
    cluster.node(3).start()?;
    assert!(!commit.wait().context(|| "wait for the commit".into())?.success());
    all_go_on(&form, &mut guests, &before, &head)?;

    let marks = Marks::read(&mut guests[0])?;
    let boot_id = guests[0].boot_id()?;
    let summary = form.commit("demo-1", "will not fail")?;
    assert!(summary.targets.iter().all(|target| target.phases_ms.contains_key("save")), "{summary:?}");
    for guest in &mut guests {
        guest.attach()?;
        assert_eq!(guest.boot_id()?, boot_id, "{}", guest.name());
        Marks::read(guest)?.continue_from(&marks, COUNTER_MOST)?;
    }
    drop(guests);
    cluster.shut_down()
}
