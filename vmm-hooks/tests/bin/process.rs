//! A process for tests to kill: `keeper`, or `daemon JSON`, which takes over a guest, does one thing to it, and says when.

#![expect(clippy::unwrap_used, reason = "what a test's own tools can't do is that test's failure")]

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use form_vmm_hooks::keeper::{KeeperCommand, Keeping};
use form_vmm_hooks::{Accel, Cuts, Files, FilesConfig, Machine, Qemu, QemuConfig, Vmm};
use serde::Deserialize;

#[derive(Deserialize)]
struct Job {
    machine: Machine,
    qemu: PathBuf,
    /// The programs of a machine of files; then it is one.
    programs: Option<PathBuf>,
    /// `pause`, `copy`, or `save`: what it hangs in.
    hang_in: String,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("keeper") => form_vmm_hooks::keeper::run(),
        Some("daemon") => {
            let job = File::open(arguments.next().unwrap()).unwrap();
            tokio::runtime::Runtime::new().unwrap().block_on(daemon(serde_json::from_reader(job).unwrap()));
            ExitCode::SUCCESS
        }
        other => panic!("{other:?} is no role"),
    }
}

fn say(word: &str) {
    println!("{word}");
    std::io::stdout().flush().unwrap();
}

/// Until it is killed, or somebody has forgotten to.
fn hang() {
    std::thread::sleep(Duration::from_secs(300));
}

async fn daemon(job: Job) {
    let command =
        KeeperCommand { program: "/proc/self/exe".into(), called: "form".into(), arguments: vec!["keeper".into()] };
    let keeping = Keeping { command: Some(command), ..Keeping::default() };
    let vmm: Box<dyn Vmm> = match job.programs {
        Some(programs) => {
            let links = programs.with_file_name("live");
            Box::new(Files::new(FilesConfig { programs, links, keeping }))
        }
        None => {
            Box::new(Qemu::new(QemuConfig { binary: job.qemu, accel: Accel::Tcg, keeping, ..QemuConfig::default() }))
        }
    };
    let has_state = job.machine.memory_bytes > 0;
    let vm = vmm.adopt(&job.machine).await.unwrap().expect("it is there");
    match job.hang_in.as_str() {
        "pause" => {
            vm.pause().await.unwrap();
            say("paused");
            hang();
        }
        "copy" => {
            let state = has_state.then(|| File::create(job.machine.dir.join("device")).unwrap());
            say("begins");
            let copy = |_| {
                say("copies");
                hang();
                Ok(())
            };
            let ended = vm.capture(state, Cuts::new(), Box::new(copy)).await;
            panic!("{ended:?}");
        }
        "save" => {
            // It holds less than a device state, and nobody reads.
            let (_reader, writer) = rustix::pipe::pipe().unwrap();
            say("begins");
            let ended = vm.capture(Some(writer.into()), Cuts::new(), Box::new(|_| Ok(()))).await;
            panic!("{ended:?}");
        }
        other => panic!("{other} is nothing to hang in"),
    }
}
