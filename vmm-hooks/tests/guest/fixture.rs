//! Machines for tests, in a directory that goes with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use form_vmm_hooks::keeper::{KeeperCommand, Keeping};
use form_vmm_hooks::{Accel, Machine, MachineDisk, Qemu, QemuConfig, Vm, VmState};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// TCG everywhere, so that a run on one host says something about a run on another. `FORM_TEST_QEMU` names another QEMU
/// than the one in PATH.
pub(crate) fn qemu() -> Qemu {
    qemu_that_is(Keeping { command: Some(keeper()), ..Keeping::default() })
}

pub(crate) fn qemu_that_is(keeping: Keeping) -> Qemu {
    let binary = std::env::var_os("FORM_TEST_QEMU").map_or(QemuConfig::default().binary, PathBuf::from);
    Qemu::new(QemuConfig { binary, accel: Accel::Tcg, keeping, ..QemuConfig::default() })
}

/// One that finds the programs of health probes there.
pub(crate) fn qemu_with(programs: &Path) -> Qemu {
    let binary = std::env::var_os("FORM_TEST_QEMU").map_or(QemuConfig::default().binary, PathBuf::from);
    Qemu::new(QemuConfig { binary, accel: Accel::Tcg, programs: programs.into(), ..QemuConfig::default() })
}

pub(crate) fn keeper() -> KeeperCommand {
    KeeperCommand { program: PROCESS.into(), called: "form".into(), arguments: vec!["keeper".into()] }
}

/// A keeper, or a daemon with one, in a process of its own.
pub(crate) const PROCESS: &str = env!("CARGO_BIN_EXE_form-hooks-process");

/// The guest's files, made by the script if need be. `FORM_TEST_GUEST` names another place where they are.
fn assets() -> &'static Path {
    static ASSETS: OnceLock<PathBuf> = OnceLock::new();
    ASSETS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = std::env::var_os("FORM_TEST_GUEST").map_or_else(|| root.join("target/guest"), PathBuf::from);
        let made = Command::new(root.join("tests/guest/make.sh")).arg(&dir).status().unwrap();
        assert!(made.success(), "tests/guest/make.sh failed");
        dir.canonicalize().unwrap()
    })
}

/// Where the machines of one test live. Processes are ended before the files go, however the test ends.
pub(crate) struct Fixture {
    dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        // Short: sockets are in it.
        Fixture { dir: tempfile::Builder::new().prefix("vm").tempdir_in("/tmp").unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A machine with a disk of its own. `number` makes it another one than its siblings.
    pub(crate) fn machine(&self, number: u8) -> Machine {
        let dir = self.path().join(number.to_string());
        fs::create_dir(&dir).unwrap();
        copy(&assets().join("root.raw"), &dir.join("root.raw"));
        Machine {
            name: format!("vm-{number}"),
            uuid: format!("00000000-0000-4000-8000-{number:012}"),
            dir: dir.join("run"),
            memory_bytes: 256 << 20,
            ram_path: dir.join("ram"),
            disks: vec![MachineDisk { name: "root".into(), path: dir.join("root.raw") }],
            kernel: assets().join("vmlinuz"),
            initrd: Some(assets().join("initrd.gz")),
            cmdline: "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on".into(),
            mac: format!("52:54:00:aa:bb:{number:02x}"),
            generation_id: format!("00000000-0000-4000-9000-{number:012}"),
            link_up: true,
            agent: false,
            commands: Default::default(),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let pid = fs::read_to_string(entry.path().join("run/pid")).unwrap_or_default();
            let pid = pid.trim();
            let uuid = format!("00000000-0000-4000-8000-{:0>12}", entry.file_name().to_string_lossy());
            // Only what this fixture started: the number may be another's by now.
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !pid.is_empty() && line.contains(&uuid) && line.contains(&*self.path().to_string_lossy()) {
                sigkill(pid.parse().unwrap());
            }
        }
    }
}

/// A copy with the holes of the original.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Kills a process; gone already is fine.
pub(crate) fn sigkill(pid: u32) {
    let _ = kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL);
}

pub(crate) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// What is in the machine's directory.
pub(crate) fn files(machine: &Machine) -> Vec<String> {
    let entries = fs::read_dir(&machine.dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits for what happens by itself in a moment.
pub(crate) async fn until_state(vm: &dyn Vm, wanted: VmState) {
    let end = Instant::now() + Duration::from_secs(60);
    while vm.state().await.unwrap() != wanted {
        assert!(Instant::now() < end, "never {wanted:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Children of this test's process that ended and were not reaped. Tests run beside one another, and between a process's
/// end and its reaping there is a moment: so only what stays counts.
pub(crate) fn zombies() -> usize {
    let count = || {
        let stats = fs::read_dir("/proc").unwrap().flatten();
        let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
        let mark = format!(") Z {} ", std::process::id());
        stats.filter(|stat| stat.contains(&mark)).count()
    };
    let end = Instant::now() + Duration::from_secs(10);
    while count() > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    count()
}
