//! Rule 21: a guest that a capture has paused goes on, whatever becomes of the daemon; one that waits for an outcome does
//! not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use form_vmm_hooks::keeper::{KeeperCommand, Keeping};
use form_vmm_hooks::{Cuts, Error, Machine, QemuConfig, VmState, Vmm};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use crate::fixture::{Fixture, PROCESS, keeper, qemu, qemu_that_is, sigkill, until_state, zombies};

/// A daemon in a process group of its own. Dropped, it is killed with all of the group.
struct Daemon {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Daemon {
    /// One that takes over a guest and then hangs there.
    fn that_hangs_in(hang_in: &str, machine: &Machine) -> Self {
        let job = machine.ram_path.with_file_name("job");
        let binary = std::env::var_os("FORM_TEST_QEMU").map_or(QemuConfig::default().binary, PathBuf::from);
        fs::write(&job, json!({ "machine": machine, "qemu": binary, "hang_in": hang_in }).to_string()).unwrap();
        let mut command = Command::new(PROCESS);
        command.arg("daemon").arg(job).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Daemon { child, says }
    }

    fn wait_for(&mut self, word: &str) {
        let mut said = String::new();
        while said.trim_end() != word {
            said.clear();
            assert_ne!(self.says.read_line(&mut said).unwrap(), 0, "it ended before it said {word}");
        }
    }

    fn kill_group(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL); // gone already is fine
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// Keepers of a machine.
fn keepers(machine: &Machine) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let dir = machine.dir.to_str().unwrap();
    let keeps = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        words.contains(&&b"keeper"[..]) && words.contains(&dir.as_bytes())
    };
    pids.filter(keeps).collect()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn log(machine: &Machine) -> String {
    fs::read_to_string(machine.dir.join("log")).unwrap()
}

/// Whoever takes a guest over finds it running, and alone.
async fn it_runs(machine: &Machine) {
    let vm = qemu().adopt(machine).await.unwrap().expect("it is still there");
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    // One whose daemon was killed before it was ready may have that still to find out.
    until("no keeper", async || keepers(machine).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_2_a_daemon_killed_during_the_copy() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    drop(qemu().boot(&machine).await.unwrap());
    let mut daemon = Daemon::that_hangs_in("copy", &machine);
    daemon.wait_for("copies");
    assert_eq!(keepers(&machine).len(), 1);
    daemon.kill_group();
    it_runs(&machine).await;
    assert!(log(&machine).contains("form keeper: lets vm-1 go on"), "{}", log(&machine));
    qemu().adopt(&machine).await.unwrap().unwrap().quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_2_a_daemon_killed_while_the_device_state_is_saved() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    drop(qemu().boot(&machine).await.unwrap());
    let mut daemon = Daemon::that_hangs_in("save", &machine);
    daemon.wait_for("begins");
    until("a keeper", async || keepers(&machine).len() == 1).await;
    // By then it has come as far as it comes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.kill_group();
    it_runs(&machine).await;
    assert!(log(&machine).contains("form keeper: lets vm-1 go on"), "{}", log(&machine));

    // And nothing of it is in the way of a capture that is not disturbed.
    let vm = qemu().adopt(&machine).await.unwrap().unwrap();
    let state = Some(tempfile::tempfile().unwrap());
    assert!(vm.capture(state, Cuts::new(), Box::new(|_| Ok(()))).await.unwrap().pause_ns > 0);
    assert!(keepers(&machine).is_empty());
    vm.quit().await.unwrap();
}

/// Some of these delays end before its keeper is there, some just after the guest was stopped, some while it is saved.
#[tokio::test(flavor = "multi_thread")]
async fn promise_2_a_daemon_killed_at_any_moment() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    drop(qemu().boot(&machine).await.unwrap());
    let (mut kept, mut let_go) = (0, 0);
    for step in 0..24 {
        let mut daemon = Daemon::that_hangs_in("copy", &machine);
        daemon.wait_for("begins");
        if step % 2 == 1 {
            until("a keeper", async || !keepers(&machine).is_empty()).await;
        }
        tokio::time::sleep(Duration::from_millis(step * 2)).await;
        kept += keepers(&machine).len();
        let before = log(&machine).len();
        daemon.kill_group();
        it_runs(&machine).await;
        let_go += usize::from(log(&machine).len() > before);
    }
    assert!(kept > 0 && let_go > 0, "{kept} times there was a keeper, {let_go} times it had something to do");
    qemu().adopt(&machine).await.unwrap().unwrap().quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_waits_for_an_outcome_stays_paused() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let vm = qemu().boot(&machine).await.unwrap();
    vm.capture(Some(tempfile::tempfile().unwrap()), Cuts::new(), Box::new(|_| Ok(()))).await.unwrap();
    drop(vm);
    let mut daemon = Daemon::that_hangs_in("pause", &machine);
    daemon.wait_for("paused");
    assert!(keepers(&machine).is_empty());
    daemon.kill_group();
    // Longer than any keeper would take.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let vm = qemu().adopt(&machine).await.unwrap().expect("it is still there");
    assert_eq!(vm.state().await.unwrap(), VmState::Paused);
    vm.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keeper_nothing_is_paused() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let vm = qemu().boot(&machine).await.unwrap();
    drop(vm);
    let no_program = KeeperCommand { program: "/nowhere/form".into(), ..keeper() };
    let ends_at_once = KeeperCommand { program: "/bin/false".into(), ..keeper() };
    for command in [None, Some(no_program), Some(ends_at_once)] {
        let alone = qemu_that_is(Keeping { command, ..Keeping::default() });
        let vm = alone.adopt(&machine).await.unwrap().unwrap();
        let state = Some(tempfile::tempfile().unwrap());
        let refused = vm.capture(state, Cuts::new(), Box::new(|_| panic!("it was paused"))).await.unwrap_err();
        assert!(matches!(refused, Error::Keeper { .. }), "{refused:?}");
        assert_eq!(vm.state().await.unwrap(), VmState::Running);
    }
    assert_eq!(zombies(), 0);
    qemu().adopt(&machine).await.unwrap().unwrap().quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_leaves_it_to_the_daemon() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let vm = qemu().boot(&machine).await.unwrap();
    let killed = machine.clone();
    let kill = move |_| {
        let keepers = keepers(&killed);
        assert_eq!(keepers.len(), 1);
        sigkill(keepers[0]);
        Ok(())
    };
    vm.capture(Some(tempfile::tempfile().unwrap()), Cuts::new(), Box::new(kill)).await.unwrap();
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    assert_eq!(zombies(), 0);
    vm.quit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_is_too_long_is_ended_and_voids_the_capture() {
    let fixture = Fixture::new();
    let machine = fixture.machine(1);
    let impatient = qemu_that_is(Keeping { command: Some(keeper()), pause_max: Duration::from_millis(200) });
    let vm = impatient.boot(&machine).await.unwrap();
    let (end, may_end) = mpsc::channel::<()>();
    let held = Box::new(move |_| may_end.recv().map_err(std::io::Error::other));
    let capture = vm.capture(Some(tempfile::tempfile().unwrap()), Cuts::new(), held);
    let watch = async {
        until("a pause", async || vm.state().await.unwrap() == VmState::Paused).await;
        until_state(&*vm, VmState::Running).await;
        end.send(()).unwrap();
    };
    let (captured, ()) = tokio::join!(capture, watch);
    assert!(matches!(captured, Err(Error::Voided { .. })), "{captured:?}");
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    assert!(log(&machine).contains("the capture is void"), "{}", log(&machine));

    // The same where it is QEMU that takes too long: a pipe that nobody reads.
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let stuck = vm.capture(Some(writer.into()), Cuts::new(), Box::new(|_| panic!("not reached"))).await;
    assert!(matches!(stuck, Err(Error::Voided { .. })), "{stuck:?}");
    assert_eq!(vm.state().await.unwrap(), VmState::Running);
    assert!(keepers(&machine).is_empty());

    // Whoever pauses it next is not disturbed.
    vm.pause().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(vm.state().await.unwrap(), VmState::Paused);
    assert_eq!(zombies(), 0);
    vm.quit().await.unwrap();
}
