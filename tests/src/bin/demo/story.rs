//! What happens, in order.

use form_node::api::types::Created;
use form_tests::{Assets, Cluster, Error, Form, Guest, Marks, NodeOptions, Result, Scene};

use crate::commit::commit;
use crate::left_up::left_up;
use crate::screen::{check, check_that, command, say, size, title};

/// Where the counter starts: nothing else in the guest counts there.
const COUNTER_START: u64 = 4_711_000;
/// How far it can come while the demo runs.
const COUNTER_MOST: u64 = 1_000_000;

pub(crate) fn tell(keep: bool) -> Result<()> {
    let assets = Assets::find()?;
    let scene = Scene::new()?;
    let dir = scene.dir().to_owned();

    title("An owner's key, and three nodes with a data directory each");
    command(&["account", "new"]);
    let (mnemonic, address) = Form::new(assets.form.clone(), None).new_account()?;
    say(&format!("owner {address}"));
    let plan = (0..3).map(|_| NodeOptions::local()).collect::<Result<_>>()?;
    let mut cluster = Cluster::start(scene, assets, plan, ("FORM_MNEMONIC", mnemonic.clone()))?;
    for number in 1..=3 {
        let view = cluster.node(number).view()?;
        let vmm = view.vmm.ok_or_else(|| Error::new("the node has no QEMU"))?;
        let data = cluster.node(number).data().display().to_string();
        let runs = format!("{} {} under {}", vmm.vmm, vmm.version, vmm.accelerator);
        say(&format!("node {number}  {}  http://{}  {data}  {runs}, {}", &view.node_id[..12], view.api, view.engine));
    }

    title("Three guests: 512 MiB of RAM, a disk of 2 GiB with a Debian root");
    let mut guests = boot(&cluster)?;
    let mut boot_ids = Vec::new();
    for guest in &mut guests {
        boot_ids.push(guest.boot_id()?);
        say(&format!("{}  boot_id {}", guest.name(), boot_ids[boot_ids.len() - 1]));
    }
    let differ = boot_ids[0] != boot_ids[1] && boot_ids[1] != boot_ids[2] && boot_ids[0] != boot_ids[2];
    check_that("each was booted by itself: the boot_ids differ", differ)?;

    title("demo-1 is changed through its serial console");
    let before = Marks::make(&mut guests[0], "changed on demo-1", COUNTER_START)?;
    show(guests[0].name(), &before);
    let summary = commit(&cluster.form(1), cluster.node(1).options().api, &mnemonic, "demo-1", "the first change")?;

    title("demo-2 and demo-3 are that machine now");
    arrived(&mut guests, 0, &before, &boot_ids[0])?;
    let first = summary.snapshot_id;

    title("demo-3 is changed, and committed from there");
    let before = Marks::make(&mut guests[2], "changed on demo-3", COUNTER_START)?;
    show(guests[2].name(), &before);
    let summary = commit(&cluster.form(3), cluster.node(3).options().api, &mnemonic, "demo-3", "the second change")?;

    title("demo-1 and demo-2 are that machine now");
    arrived(&mut guests, 2, &before, &boot_ids[0])?;
    check_that("the second commit's parent is the first: the base has moved on", summary.parent == Some(first))?;
    for name in ["demo-1", "demo-2", "demo-3"] {
        let history = cluster.form(1).instance(name)?;
        let head = history.snapshot_id.as_ref() == Some(&summary.snapshot_id);
        check_that(&format!("{name} runs the second commit, and its history says so"), head)?;
    }

    drop(guests);
    if keep {
        left_up(cluster, &mnemonic);
        return Ok(());
    }
    title("The end");
    let ended = cluster.shut_down();
    check("instances stopped, nodes ended, no process left", ended)?;
    check_that(&format!("{} is gone", dir.display()), !dir.exists())
}

/// Three instances of one cluster, each booted by its own node.
fn boot(cluster: &Cluster) -> Result<Vec<Guest>> {
    command(&["manage", "create", "--name", "demo-1", "--spec", "guest.toml"]);
    cluster.create(1, "demo-1")?;
    command(&["manage", "start", "--name", "demo-1"]);
    let mut guests = vec![cluster.boot(1, "demo-1")?];
    guests[0].attach()?;
    for number in [2, 3] {
        let name = format!("demo-{number}");
        command(&["manage", "create", "--name", &name, "--like", "demo-1"]);
        let Created { received_bytes, .. } = cluster.create_like(number, &name, "demo-1")?;
        say(&format!("node {number} received the cluster's head in full, this once: {}", size(received_bytes)));
        command(&["manage", "start", "--name", &name]);
        guests.push(cluster.boot(number, &name)?);
    }
    for guest in &mut guests {
        guest.attach()?;
    }
    Ok(guests)
}

fn show(name: &str, marks: &Marks) {
    say(&format!("{name}  /root/synced    {}", marks.synced));
    say(&format!("{name}  /root/unsynced  {}", marks.unsynced));
    say(&format!("{name}  /tmp/mark       {}", marks.tmpfs));
    say(&format!("{name}  $mark           {}", marks.variable));
    say(&format!("{name}  counter         {}  (kept in a process's memory alone)", marks.counter));
}

/// Every guest is what `source` was; the source itself has gone on.
fn arrived(guests: &mut [Guest], source: usize, before: &Marks, boot_id: &str) -> Result<()> {
    for (number, guest) in guests.iter_mut().enumerate() {
        if number != source {
            guest.attach()?;
        }
        let now = Marks::read(guest)?;
        if number != source {
            show(guest.name(), &now);
        }
        let what =
            if number == source { "the source has gone on by itself" } else { "all five arrived, the counter goes on" };
        check(&format!("{}: {what}", guest.name()), now.continue_from(before, COUNTER_MOST))?;
        check(&format!("{}: it counts", guest.name()), Marks::counts_on(guest))?;
        let same = guest.boot_id()? == boot_id;
        let how = if number == source { "as ever" } else { "restored, not rebooted" };
        check_that(&format!("{}: boot_id {boot_id}: {how}", guest.name()), same)?;
    }
    Ok(())
}
