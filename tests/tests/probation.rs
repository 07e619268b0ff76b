//! Real guests on probation: a commit of a guest that says of itself that it is broken moves nobody (rule 16, promise 1), and
//! a node that is killed meanwhile leaves neither a VM nor a file of it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use form_node::ErrorCode;
use form_tests::{Assets, Cluster, Context, Guest, Marks, NodeOptions, Result, Scene};

const COUNTER_START: u64 = 55_000_000;
const COUNTER_MOST: u64 = 10_000_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks the guest, over its console. It waits where a file `hang` is.
const PROBE: &str = r#"#!/usr/bin/perl
use IO::Socket::UNIX;
my $top = "$ENV{FORM_DIR}/../../..";
open(my $calls, ">>", "$top/calls"); print $calls "$ENV{FORM_INSTANCE} $ENV{FORM_COMMAND}\n"; close $calls;
while (-e "$top/hang") { open(my $hangs, ">", "$top/hangs"); select(undef, undef, undef, 0.05) }
my $guest = IO::Socket::UNIX->new(Peer => "con") or die "no console: $!";
print $guest "echo tried >> /root/tried; sync; test -e /root/broken && echo bro''ken || echo we''ll\n";
$guest->flush;
my $said = "";
while (sysread($guest, my $more, 4096)) {
    $said .= $more;
    exit 0 if $said =~ /well/;
    if ($said =~ /broken/) { print "the guest says that it is broken\n"; exit 1 }
}
die "the console was closed";
"#;

fn path(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.node_ref(2).data().join(name)
}

fn calls(cluster: &Cluster) -> usize {
    std::fs::read_to_string(path(cluster, "calls")).unwrap_or_default().lines().count()
}

/// Each instance is one VM in one directory, and there is no other process than those and their nodes.
fn nothing_is_left(cluster: &Cluster) {
    let until = Instant::now() + PATIENCE;
    let left = || {
        let dirs: Vec<_> = (1..=2)
            .flat_map(|number| {
                let instances = cluster.node_ref(number).data().join("instances");
                let instances = std::fs::read_dir(instances).expect("read").flatten();
                instances.flat_map(|dir| std::fs::read_dir(dir.path()).expect("read").flatten())
            })
            .map(|dir| dir.path())
            .collect();
        (dirs, cluster.scene().processes().len())
    };
    loop {
        let (dirs, processes) = left();
        if dirs.len() == 2 && processes == 4 {
            return;
        }
        assert!(Instant::now() < until, "{processes} processes, {dirs:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn rule_16_a_guest_that_is_not_well_moves_nobody() -> Result<()> {
    let plan = (0..2).map(|_| NodeOptions::local()).collect::<Result<Vec<_>>>()?;
    let assets = Assets::find()?;
    let spec = format!("{}\n[health]\ncommand = [\"is-well\"]\ntimeout_s = 120\n", assets.spec());
    let (mnemonic, _) = form_tests::Form::new(assets.form.clone(), None).new_account()?;
    let mut cluster = Cluster::start(Scene::new()?, assets, plan, ("FORM_MNEMONIC", mnemonic))?;
    std::fs::write(cluster.scene().dir().join("guest.toml"), spec).context(|| "write the spec".into())?;
    let mut guests = cluster.boot_all("demo", 2)?;
    let form = cluster.form(1);

    // Without its program nobody is paused.
    let refusal = form.refused(&["manage", "commit", "--name", "demo-1"])?;
    assert_eq!(refusal.error.code, ErrorCode::MissingDependency, "{refusal:?}");
    assert!(format!("{:?}", refusal.error).contains("commands/is-well"), "{refusal:?}");
    let program = path(&cluster, "commands/is-well");
    std::fs::write(&program, PROBE).context(|| "write the probe".into())?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).context(|| "chmod".into())?;

    // It is well.
    let marks = Marks::make(&mut guests[0], "I am the source", COUNTER_START)?;
    let boot_id = guests[0].boot_id()?;
    let summary = form.commit("demo-1", "well")?;
    assert_eq!(calls(&cluster), 1, "the target is asked, and once");
    assert!(summary.targets[0].phases_ms.contains_key("probation"), "{summary:?}");
    for guest in &mut guests {
        guest.attach()?;
        assert_eq!(guest.boot_id()?, boot_id, "{}", guest.name());
        Marks::read(guest)?.continue_from(&marks, COUNTER_MOST)?;
        assert_eq!(
            guest.run("ls /root/tried 2> /dev/null || echo nothing")?,
            "nothing",
            "what was tried is thrown away"
        );
    }
    nothing_is_left(&cluster);

    // It is not; the two have become different machines meanwhile.
    guests[1].run("echo two > /tmp/who")?;
    guests[0].run("touch /root/broken")?;
    let before = [Marks::read(&mut guests[0])?, Marks::read(&mut guests[1])?];
    let run_on = |guests: &mut Vec<Guest>| -> Result<()> {
        for (guest, before) in guests.iter_mut().zip(&before) {
            guest.attach()?;
            Marks::read(guest)?.continue_from(before, COUNTER_MOST)?;
            Marks::counts_on(guest)?;
        }
        assert_eq!(guests[1].run("cat /tmp/who; ls /root/broken /root/tried 2> /dev/null || true")?, "two");
        Ok(())
    };
    let refusal = form.refused(&["manage", "commit", "--name", "demo-1", "--description", "broken"])?;
    assert_eq!((refusal.error.code, refusal.exit_code), (ErrorCode::Aborted, 8), "{refusal:?}");
    let said = format!("{:?}", refusal.error);
    for part in ["demo-2", "health probe", "is-well", "the guest says that it is broken"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!(calls(&cluster), 2);
    run_on(&mut guests)?;
    nothing_is_left(&cluster);
    assert_eq!(form.instance("demo-2")?.snapshot_id.as_ref(), Some(&summary.snapshot_id));

    // The target's node is killed while it asks.
    std::fs::write(path(&cluster, "hang"), "").context(|| "hang".into())?;
    let words = ["manage", "commit", "--name", "demo-1", "--description", "cut short"];
    let mut commit = form.command(words);
    commit.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut commit = commit.spawn().context(|| "begin a commit".into())?;
    let until = Instant::now() + PATIENCE;
    while !path(&cluster, "hangs").exists() {
        assert!(Instant::now() < until, "it is never asked");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.node(2).kill()?;
    cluster.node(2).start()?;
    std::fs::remove_file(path(&cluster, "hang")).context(|| "go on".into())?;
    assert!(!commit.wait().context(|| "wait for the commit".into())?.success());
    run_on(&mut guests)?;
    nothing_is_left(&cluster);

    guests[0].run("rm /root/broken")?;
    form.commit("demo-1", "well again")?;
    nothing_is_left(&cluster);
    for guest in &mut guests {
        guest.attach()?;
        assert_eq!(guest.run("ls /root/broken /tmp/who 2> /dev/null || echo neither")?, "neither", "{}", guest.name());
    }
    drop(guests);
    cluster.shut_down()
}
