//! A guest on probation: asked in every way, it writes to nothing that it was made of, and is gone afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use form_vmm_hooks::{Cuts, Error, ErrorKind, Health, Machine, Probe, Qemu, Vm, VmState, Vmm};
use tokio::task::block_in_place;

use crate::console::Console;
use crate::fixture::{Fixture, copy, exists, files, qemu_with, zombies};

/// Without DHCP and without `ip`: the address that QEMU's network forwards to, by SIOCSIFADDR.
const ADDRESS: &str = r#"perl -MSocket -e 'socket(S, AF_INET, SOCK_DGRAM, 0); ioctl(S, 0x8916, pack("a16 S n a4 x8", "eth0", AF_INET, 0, inet_aton("10.0.2.15"))) or die $!'"#;
/// Takes connections at port 80.
const SERVER: &str = r#"(perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalPort => 80, ReuseAddr => 1) or die; open(F, ">/tmp/up"); while ($c = $s->accept) { sleep 1 }' &) ; while [ ! -e /tmp/up ]; do sleep 0.1; done"#;
/// Answers as a guest agent does: two commands of it.
const AGENT: &str = r#"(perl -e 'open(P, "+<", glob("/dev/vport*p1")) or die; open(F, ">/tmp/agent"); for (;;) { if (!sysread(P, $b, 4096)) { select(undef, undef, undef, 0.05); next } syswrite(P, "\xff{\"return\": $1}\n") if $b =~ /"id":\s*(\d+)/; syswrite(P, "{\"return\": {}}\n") if $b =~ /guest-ping/ }' & echo $! > /tmp/agent-pid) ; while [ ! -e /tmp/agent ]; do sleep 0.1; done"#;
/// Changes its disk all the time.
const WRITER: &str = "(while :; do date >> /root/written; sync; sleep 0.05; done) &";

/// What a capture left, and a directory for whoever is on probation.
struct Trial {
    qemu: Qemu,
    machine: Machine,
    state: PathBuf,
    kept: PathBuf,
}

impl Trial {
    /// Captures the guest; it is paused afterwards.
    async fn of(vm: &dyn Vm, fixture: &Fixture, from: &Machine, mut machine: Machine) -> Self {
        let (state, kept) = (fixture.path().join("state"), fixture.path().join("kept"));
        machine.dir = fixture.path().join("probation");
        machine.agent = true;
        let (source, target, keep) = (from.clone(), machine.clone(), kept.clone());
        let copies = Box::new(move |_| {
            copy(&source.ram_path, &target.ram_path);
            copy(&source.disks[0].path, &target.disks[0].path);
            let _ = fs::remove_dir_all(&keep); // of the one before
            fs::create_dir(&keep)?;
            copy(&target.ram_path, &keep.join("ram"));
            copy(&target.disks[0].path, &keep.join("disk"));
            Ok(())
        });
        vm.capture(Some(File::create(&state).unwrap()), Cuts::new(), copies).await.unwrap();
        vm.pause().await.unwrap();
        Trial { qemu: qemu_with(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")), machine, state, kept }
    }

    /// Nothing is left of it but its log, and its files are what they were.
    async fn ask(&self, probe: Probe, timeout_s: u32) -> Result<(), (String, String)> {
        let health = Health { probe, timeout_s };
        self.qemu.can_probe(&self.machine, &health).await.unwrap();
        let asked = self.qemu.probe(&self.machine, Some(File::open(&self.state).unwrap()), &health).await;
        assert_eq!(files(&self.machine), ["log"]);
        assert!(self.qemu.adopt(&self.machine).await.unwrap().is_none());
        for (file, kept) in [(&self.machine.ram_path, "ram"), (&self.machine.disks[0].path, "disk")] {
            let same = Command::new("cmp").arg(file).arg(self.kept.join(kept)).status().unwrap();
            assert!(same.success(), "{} was written to", file.display());
        }
        match asked {
            Ok(()) => Ok(()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unhealthy, "{error:?}");
                let Error::Unhealthy { probe, reason, .. } = error else { panic!("{error:?}") };
                Err((probe, reason))
            }
        }
    }

    async fn fails(&self, probe: Probe, timeout_s: u32, asked: &str, reason: &str) {
        let (probe, said) = self.ask(probe, timeout_s).await.expect_err("it is not well");
        assert_eq!(probe, asked);
        assert!(said.contains(reason), "{reason:?} is not in {said:?}");
    }
}

fn command(word: &str) -> Probe {
    Probe::Command(["probe.sh", word].map(String::from).to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_question_is_answered_and_nothing_is_written() {
    let fixture = Fixture::new();
    let (mut original, other) = (fixture.machine(1), fixture.machine(2));
    original.agent = true;
    let vm = crate::fixture::qemu().boot(&original).await.unwrap();
    let mut console = Console::connect(&vm.console());
    block_in_place(|| {
        console.ready();
        [ADDRESS, SERVER, AGENT, WRITER].iter().for_each(|line| drop(console.run(line)));
        console.run("while [ ! -s /root/written ]; do sleep 0.1; done");
    });
    let trial = Trial::of(&*vm, &fixture, &original, other).await;

    trial.ask(Probe::TcpPort(80), 60).await.unwrap();
    trial.fails(Probe::TcpPort(81), 60, "TCP port 81", "nobody takes connections").await;
    trial.ask(Probe::AgentPing, 60).await.unwrap();
    // The command finds the guest behind the console, and what it says is told.
    trial.ask(command("console"), 60).await.unwrap();
    trial.fails(command("ill"), 60, "command `probe.sh ill`", "exit status: 3; it said: vm-2 is ill: health").await;
    trial.fails(command("slow"), 2, "command `probe.sh slow`", "did not end within 2 s; it said: waits").await;
    // A restart is no answer.
    trial.fails(command("restart"), 60, "command `probe.sh restart`", "it has restarted").await;

    // An agent that is not there.
    vm.resume().await.unwrap();
    block_in_place(|| console.run("kill $(cat /tmp/agent-pid)"));
    let trial = Trial::of(&*vm, &fixture, &original, trial.machine).await;
    trial.fails(Probe::AgentPing, 3, "guest agent ping", "no answer within 3 s").await;

    // What was captured is restored as if nobody had asked, and nothing that was made for the questions is there any more.
    let restored = trial.qemu.restore(&trial.machine, Some(File::open(&trial.state).unwrap())).await.unwrap();
    vm.quit().await.unwrap();
    restored.resume().await.unwrap();
    let mut console = Console::connect(&restored.console());
    block_in_place(|| assert_eq!(console.run("ls /tmp/up"), "/tmp/up"));
    restored.quit().await.unwrap();
    assert_eq!(zombies(), 0);
}

/// Whoever is lost meanwhile leaves a process that is found by its directory; one who gives up leaves none.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_given_up_leaves_nobody() {
    let fixture = Fixture::new();
    let (original, other) = (fixture.machine(1), fixture.machine(2));
    let vm = crate::fixture::qemu().boot(&original).await.unwrap();
    let mut trial = Trial::of(&*vm, &fixture, &original, other).await;
    trial.machine.agent = false;
    let health = Health { probe: command("slow"), timeout_s: 600 };
    let pid = async {
        let path = trial.machine.dir.join("log");
        while !fs::read_to_string(&path).unwrap_or_default().contains("waits") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        fs::read_to_string(trial.machine.dir.join("pid")).unwrap().trim().parse::<u32>().unwrap()
    };
    let pid = tokio::select! {
        asked = trial.qemu.probe(&trial.machine, Some(File::open(&trial.state).unwrap()), &health) => panic!("{asked:?}"),
        pid = pid => pid,
    };
    assert!(!exists(pid), "it was asked by somebody who is gone");
    vm.resume().await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    vm.quit().await.unwrap();
}
