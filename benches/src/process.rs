//! A child process and what it used: wall time, CPU time and peak memory of it and all its children.
#![expect(
    unsafe_code,
    reason = "wait4 is the only call that tells what one child used, and no safe wrapper of it is kept up"
)]

use std::{
    fs::{self, File},
    io::{Read, Seek},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::Result;

/// How often the memory of a running process is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// What processes used, one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// From start to end, summed.
    pub wall_s: f64,
    /// User and system time of all of them.
    pub cpu_s: f64,
    /// Largest resident set of any one of them, as wait4 tells it: files that are mapped count.
    pub resident_bytes: u64,
    /// Largest private memory seen, children included: sampled, so a peak shorter than some ms may be missed.
    pub private_bytes: u64,
}

impl Usage {
    /// Another process has run, after those before.
    pub fn add(&mut self, other: Usage) {
        self.wall_s += other.wall_s;
        self.cpu_s += other.cpu_s;
        self.resident_bytes = self.resident_bytes.max(other.resident_bytes);
        self.private_bytes = self.private_bytes.max(other.private_bytes);
    }

    /// Runs a command to its end, adds what it used, and returns what it printed.
    pub fn run(&mut self, command: &mut Command) -> Result<String> {
        let (usage, printed) = Running::start(command)?.wait()?;
        self.add(usage);
        Ok(printed)
    }
}

/// A process under way.
pub struct Running {
    name: String,
    pid: libc::pid_t,
    started: Instant,
    printed: File,
    complained: File,
    ended: Arc<AtomicBool>,
    sampler: JoinHandle<()>,
    private_bytes: Arc<AtomicU64>,
}

impl Running {
    /// Starts a command; its output goes to files. Without a stdin of its own it reads nothing.
    pub fn start(command: &mut Command) -> Result<Running> {
        let name = format!("{command:?}");
        let (printed, complained) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(Stdio::from(printed.try_clone()?)).stderr(Stdio::from(complained.try_clone()?));
        let started = Instant::now();
        let child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let (ended, private_bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sampler = thread::spawn({
            let (ended, private_bytes, pid) = (Arc::clone(&ended), Arc::clone(&private_bytes), child.id());
            move || {
                while !ended.load(Ordering::Relaxed) {
                    private_bytes.fetch_max(private_bytes_of(pid), Ordering::Relaxed);
                    thread::sleep(SAMPLE_EVERY);
                }
            }
        });
        let pid = libc::pid_t::try_from(child.id())?;
        Ok(Running { name, pid, started, printed, complained, ended, sampler, private_bytes })
    }

    /// Waits for its end. An exit code other than 0 is an error that says what the process said.
    pub fn wait(mut self) -> Result<(Usage, String)> {
        let mut status = 0;
        // SAFETY: all zeros is a valid rusage; wait4 is given valid pointers to both results, and the child is ours: nobody else has waited for it.
        let (pid, used) = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            (libc::wait4(self.pid, &mut status, 0, &mut used), used)
        };
        let wall_s = self.started.elapsed().as_secs_f64();
        self.ended.store(true, Ordering::Relaxed);
        self.sampler.join().map_err(|_| "the sampler of memory is gone")?;
        if pid != self.pid {
            return Err(format!("{}: wait4: {}", self.name, std::io::Error::last_os_error()).into());
        }
        let printed = text(&mut self.printed)?;
        if status != 0 {
            let complained = text(&mut self.complained)?;
            return Err(format!("{} ended with status {status:#x}\n{printed}{complained}", self.name).into());
        }
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        let usage = Usage {
            wall_s,
            cpu_s: seconds(used.ru_utime) + seconds(used.ru_stime),
            resident_bytes: u64::try_from(used.ru_maxrss)? << 10,
            private_bytes: self.private_bytes.load(Ordering::Relaxed),
        };
        Ok((usage, printed))
    }
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Anonymous memory of a process and its descendants; of those that are gone, nothing.
fn private_bytes_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let of_children: u64 = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(private_bytes_of).sum();
    (own_kib << 10) + of_children
}
