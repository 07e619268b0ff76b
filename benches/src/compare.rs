//! Whole updates of every pair, with every tool, in turns.
//!
//! All images of a pair are brought into the page cache before each run, and everything written before it onto the disk. Each round runs each tool once: in order,
//! in the opposite order, beginning with the middle one. What a run leaves is compared with the new image (the first time with cmp, then in a process of ours that skips holes) and removed; a standby
//! image is made the base again. A target is done when its image is durable: the fsync that its tool did not do is added to its time.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    Result,
    corpus::{self, Pair},
    process::Usage,
    results::{Comparison, PairResult, Run, ToolResult, median},
    settings::Settings,
    tools::{self, Job, Tool},
};

/// A peer whose first update of a pair took longer runs once: it decides no bound on time, and bytes need no median.
const SLOW_S: f64 = 5.0;

/// Runs everything. Updates that failed are left out, and told.
pub fn run(settings: &Settings) -> Result<(Comparison, Vec<String>)> {
    let (pairs, tools) = (corpus::pairs(settings)?, tools::all(settings)?);
    let room = settings.dir.join("work");
    remove(&room)?;
    fs::create_dir_all(&room)?;
    let mut failures = Vec::new();
    let mut comparison = Comparison { machine: machine()?, rounds: settings.rounds, pairs: Vec::new() };
    for pair in &pairs {
        comparison.pairs.push(run_pair(settings, pair, &tools, &room, &mut failures)?);
        // A run that is interrupted has measured something too.
        comparison.save(&settings.dir.join("compare.json"))?;
    }
    remove(&room)?;
    Ok((comparison, failures))
}

/// A tool on a pair: what it prepared and what it has done so far.
struct Entry<'a> {
    tool: &'a dyn Tool,
    state: PathBuf,
    setup: Usage,
    makes_image: bool,
    runs: Vec<Run>,
    out: bool,
}

fn run_pair(
    settings: &Settings,
    pair: &Pair,
    tools: &[Box<dyn Tool>],
    room: &Path,
    failures: &mut Vec<String>,
) -> Result<PairResult> {
    eprintln!("{}: {}", pair.name, pair.title);
    let base = pair.bases.first().ok_or("a pair without a base")?;
    let standby = standby_of(room, base)?;
    let mut entries = Vec::new();
    for tool in tools {
        match prepare(tool.as_ref(), pair, room) {
            Ok((state, setup)) => {
                entries.push(Entry {
                    tool: tool.as_ref(),
                    state,
                    setup,
                    makes_image: false,
                    runs: Vec::new(),
                    out: false,
                });
            }
            Err(error) => failures.push(failed(pair, tool.as_ref(), &error.to_string())),
        }
    }
    for round in 0..settings.rounds {
        let mut order: Vec<&mut Entry> = entries.iter_mut().collect();
        match round % 3 {
            0 => {}
            1 => order.reverse(),
            _ => {
                let half = order.len() / 2;
                order.rotate_left(half);
            }
        }
        order.into_iter().for_each(|entry| one_run(entry, pair, room, &standby, round, failures));
    }
    let counted = yardstick("compare", &[base, &pair.new])?;
    let changed_bytes = serde_json::from_str::<serde_json::Value>(&counted)?["changed_bytes"].as_u64().unwrap_or(0);
    Ok(PairResult {
        pair: pair.name.to_owned(),
        title: pair.title.to_owned(),
        image_bytes: pair.new.metadata()?.len(),
        changed_bytes,
        tools: entries.into_iter().filter(|entry| !entry.runs.is_empty()).map(summary).collect::<Result<_>>()?,
    })
}

/// What both ends have from the update before; made once for each list of bases.
fn prepare(tool: &dyn Tool, pair: &Pair, room: &Path) -> Result<(PathBuf, Usage)> {
    let bases: Vec<String> = pair.bases.iter().map(|base| corpus::name_of(base)).collect();
    let state = room.join("state").join(tool.name()).join(bases.join("+"));
    let told = state.with_extension("json");
    if !told.exists() {
        remove(&state)?;
        fs::create_dir_all(&state)?;
        let mut setup = Usage::default();
        tool.prepare(&pair.bases, &state, &mut setup)?;
        fs::write(&told, serde_json::to_string(&setup)?)?;
    }
    Ok((state, serde_json::from_str(&fs::read_to_string(told)?)?))
}

fn one_run(entry: &mut Entry, pair: &Pair, room: &Path, standby: &Path, round: usize, failures: &mut Vec<String>) {
    if entry.out {
        return;
    }
    match update(entry, pair, room, standby, round) {
        Ok(run) => {
            let total_s = run.source.wall_s + run.target.wall_s;
            let (name, bytes) = (entry.tool.name(), run.wire_bytes);
            eprintln!("  {name:<10} {bytes:>12} B {:>8.3} s + {:.3} s", run.source.wall_s, run.target.wall_s);
            entry.out = total_s > SLOW_S && entry.tool.role().is_peer();
            entry.runs.push(run);
        }
        Err(error) => {
            failures.push(failed(pair, entry.tool, &error.to_string()));
            entry.out = true;
        }
    }
}

fn failed(pair: &Pair, tool: &dyn Tool, error: &str) -> String {
    let failure = format!("{} {}: {}", pair.name, tool.name(), error.trim());
    eprintln!("  failed: {failure}");
    failure
}

fn update(entry: &mut Entry, pair: &Pair, room: &Path, standby: &Path, round: usize) -> Result<Run> {
    let work = room.join("run");
    remove(&work)?;
    fs::create_dir(&work)?;
    // Reads ahead of the run what a kernel may have dropped since the last one.
    let images: Vec<&Path> = pair.bases.iter().chain([&pair.new]).map(PathBuf::as_path).chain([standby]).collect();
    yardstick("warm", &images)?;
    // What earlier runs wrote is on disk: writing it back would take from this one's time.
    rustix::fs::sync();
    let job = Job { bases: &pair.bases, new: &pair.new, state: &entry.state, work: &work, standby };
    let (mut source, mut target) = (Usage::default(), Usage::default());
    let update = entry.tool.update(&job, &mut source, &mut target);
    let mut sync_s = 0.0;
    let checked = update.and_then(|update| {
        if let Some(result) = &update.result {
            let start = Instant::now();
            File::open(result)?.sync_all()?;
            sync_s = start.elapsed().as_secs_f64();
            check(result, &pair.new, round)?;
        }
        Ok(update)
    });
    if entry.tool.in_place() {
        restore(standby, checked.as_ref().ok().and_then(|update| update.result.as_deref()), pair)?;
    }
    let update = checked?;
    remove(&work)?;
    entry.makes_image = update.result.is_some();
    target.wall_s += sync_s;
    Ok(Run { wire_bytes: update.wire_bytes, source, target, sync_s, detail: update.detail })
}

/// The result is the new image, byte for byte.
fn check(result: &Path, new: &Path, round: usize) -> Result<()> {
    if round > 0 {
        yardstick("same", &[result, new])?;
        return Ok(());
    }
    Usage::default().run(Command::new("cmp").arg(result).arg(new))?;
    Ok(())
}

/// The standby image as it was, wherever a tool left it and whatever it did to it.
fn restore(standby: &Path, result: Option<&Path>, pair: &Pair) -> Result<()> {
    if let Some(result) = result.filter(|result| *result != standby) {
        fs::rename(result, standby)?;
    }
    let base = pair.bases.first().ok_or("a pair without a base")?;
    let is_whole = standby.metadata().is_ok_and(|meta| base.metadata().is_ok_and(|base| base.len() == meta.len()));
    if !is_whole {
        let _ = fs::remove_file(standby);
        return copy(base, standby);
    }
    yardstick("reset", &[standby, base])?;
    Ok(())
}

/// A copy of the base that tools may change in place. There is one at a time.
fn standby_of(room: &Path, base: &Path) -> Result<PathBuf> {
    let dir = room.join("standby");
    let standby = dir.join(base.file_name().unwrap_or_default());
    if !standby.exists() {
        remove(&dir)?;
        fs::create_dir(&dir)?;
        copy(base, &standby)?;
    }
    Ok(standby)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    Usage::default().run(Command::new("cp").args(["--sparse=always", "--reflink=never"]).arg(from).arg(to))?;
    Ok(File::open(to)?.sync_all()?)
}

fn yardstick(verb: &str, files: &[&Path]) -> Result<String> {
    Usage::default().run(Command::new(std::env::current_exe()?).args(["yardstick", verb]).args(files))
}

fn summary(entry: Entry) -> Result<ToolResult> {
    let runs = entry.runs;
    let first = runs.first().ok_or("a tool without a run")?;
    let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    let said = |run: &Run| (run.wire_bytes, run.detail["blake3"].clone());
    Ok(ToolResult {
        tool: entry.tool.name().to_owned(),
        role: entry.tool.role(),
        makes_image: entry.makes_image,
        setup_s: entry.setup.wall_s,
        setup_bytes: disk_bytes(&entry.state)?,
        wire_bytes: of(|run| run.wire_bytes as f64) as u64,
        repeats: runs.iter().all(|run| said(run) == said(first)),
        source: Usage {
            wall_s: of(|run| run.source.wall_s),
            cpu_s: of(|run| run.source.cpu_s),
            resident_bytes: of(|run| run.source.resident_bytes as f64) as u64,
            private_bytes: of(|run| run.source.private_bytes as f64) as u64,
        },
        target: Usage {
            wall_s: of(|run| run.target.wall_s),
            cpu_s: of(|run| run.target.cpu_s),
            resident_bytes: of(|run| run.target.resident_bytes as f64) as u64,
            private_bytes: of(|run| run.target.private_bytes as f64) as u64,
        },
        sync_s: of(|run| run.sync_s),
        runs,
    })
}

/// What the files below a directory occupy.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { disk_bytes(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(sum)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {error}", dir.display()).into()),
        _ => Ok(()),
    }
}

/// One line on what all this was measured on.
pub fn machine() -> Result<String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, label: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        line.and_then(|line| line.split(':').nth(1)).unwrap_or("").trim().to_owned()
    };
    let kib: u64 = of(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    Ok(format!(
        "{} × {}, {} GiB of memory, Linux {}",
        std::thread::available_parallelism()?,
        of(&read("/proc/cpuinfo"), "model name"),
        kib >> 20,
        read("/proc/sys/kernel/osrelease").trim()
    ))
}
