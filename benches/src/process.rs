//! Processes and what they used: wall time, CPU time and peak memory. Of a child, all its children are counted too.
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
    sampler: Sampler,
}

impl Running {
    /// Starts a command; its output goes to files. Without a stdin of its own it reads nothing.
    pub fn start(command: &mut Command) -> Result<Running> {
        // Not its environment, which may hold a key.
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let name = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let (printed, complained) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdout(Stdio::from(printed.try_clone()?)).stderr(Stdio::from(complained.try_clone()?));
        let started = Instant::now();
        let child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let sampler = Sampler::start(child.id());
        let pid = libc::pid_t::try_from(child.id())?;
        Ok(Running { name, pid, started, printed, complained, sampler })
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
        let private_bytes = self.sampler.end()?;
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
            private_bytes,
        };
        Ok((usage, printed))
    }
}

/// A process that is not a child of this one, while something happens.
pub struct Watch {
    pid: u32,
    cpu_s: f64,
    sampler: Sampler,
}

impl Watch {
    /// Begins to look at it.
    pub fn start(pid: u32) -> Result<Watch> {
        Ok(Watch { pid, cpu_s: cpu_s(pid)?, sampler: Sampler::start(pid) })
    }

    /// What it has used since. The wall time is left to whoever knows it.
    pub fn end(self) -> Result<Usage> {
        let cpu_s = cpu_s(self.pid)? - self.cpu_s;
        let resident_bytes = status_bytes(self.pid, "VmRSS:");
        Ok(Usage { wall_s: 0.0, cpu_s, resident_bytes, private_bytes: self.sampler.end()? })
    }
}

/// User and system time of a process so far, as the kernel counts them: in hundredths of a second.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The name, in parentheses, may hold anything. The state is the third field; the times are the 14th and 15th.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).map_while(|field| field.parse().ok()).collect();
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    match ticks.as_slice() {
        [user, system] => Ok((user + system) as f64 / ticks_per_s as f64),
        _ => Err(format!("{path} says {stat}").into()),
    }
}

/// Looks at a process's private memory until it is told to end.
struct Sampler {
    ended: Arc<AtomicBool>,
    private_bytes: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Sampler {
    fn start(pid: u32) -> Sampler {
        let (ended, private_bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (ended, private_bytes) = (Arc::clone(&ended), Arc::clone(&private_bytes));
            move || {
                while !ended.load(Ordering::Relaxed) {
                    private_bytes.fetch_max(private_bytes_of(pid), Ordering::Relaxed);
                    thread::sleep(SAMPLE_EVERY);
                }
            }
        });
        Sampler { ended, private_bytes, thread }
    }

    /// The most that was seen.
    fn end(self) -> Result<u64> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the sampler of memory is gone")?;
        Ok(self.private_bytes.load(Ordering::Relaxed))
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
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let of_children: u64 = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(private_bytes_of).sum();
    status_bytes(pid, "RssAnon:") + of_children
}

/// A figure of `/proc/<pid>/status`, which counts in KiB; 0 of a process that is gone.
fn status_bytes(pid: u32, label: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(label));
    value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}
