//! The pause of a real guest's commit against its memory and against what it writes meanwhile, beside a compare pass over the same memory.
//!
//! Guests of 512 MiB to 4 GiB run under QEMU, somewhat more than half of their memory in use. A writer in the guest rewrites a file in its tmpfs over and over while the commit to
//! one target on another node is made. What differs at the pause is then compared and copied while the guest stands still. After that the guest's memory is
//! compared with what the node holds of it, as the pause did, by the yardstick: the bound is 30 ms and twice that. Rows are named
//! `memory in MiB/rewritten MiB/metric`.

use std::{fs, path::Path};

use form_tests::{Assets, Cluster, Guest, NodeOptions, Scene};
use serde_json::Value;

use crate::{
    Result,
    nodes::{self, base, commit, number, only_live, until_idle},
    results::{self, Row, Rows, median},
    settings::Settings,
};

const MEMORY_MIB: [u64; 4] = [512, 1024, 2048, 4096];
const REWRITTEN_MIB: [u64; 4] = [0, 16, 64, 128];
/// The files that the writer takes in turns are as long as this; so is what it writes at once.
const PIECE_MIB: u64 = 16;
/// Of a guest's memory, what it has booted apart.
const IN_USE: f64 = 0.5;
/// What is promised: this, and twice a compare pass.
const BOUND_MS: f64 = 30.0;
const COMPARE_PASSES: usize = 3;

/// A writer, in Perl, which the guest has: rewrites the first so many MiB of /tmp/set with one of two files in turns, for ever; or once with each.
const WRITER: &str = r#"
my ($mib, $once) = @ARGV;
my @pieces;
for my $name ("a", "b") {
  open(my $file, "<", "/tmp/$name") or die $!;
  local $/;
  push @pieces, scalar <$file>;
}
open(my $set, "+<", "/tmp/set") or die $!;
do {
  for my $piece (@pieces) {
    for (my $at = 0; $at < $mib << 20; $at += length $piece) {
      sysseek($set, $at, 0);
      syswrite($set, $piece) == length $piece or die $!;
    }
  }
} until $once;
"#;

/// Runs all commits and writes their rows.
pub fn run(settings: &Settings) -> Result<()> {
    fs::create_dir_all(&settings.dir)?;
    let path = settings.dir.join("pause.jsonl");
    let stays = |row: &Row| row.name != WORST && !settings.wants_pair(row.name.split('/').next().unwrap_or_default());
    let mut rows = Rows::in_file("pause", &path, stays)?;
    let wanted = |memory_mib: &u64| settings.wants_pair(&memory_mib.to_string());
    for memory_mib in MEMORY_MIB.into_iter().filter(wanted) {
        let mut scene = Guests::boot(settings, memory_mib)?;
        for rewritten_mib in REWRITTEN_MIB {
            let mut runs = Vec::new();
            for _ in 0..settings.rounds {
                runs.push(scene.commit(rewritten_mib)?);
            }
            let medians = METRICS.map(|metric| median(runs.iter().map(|run| run.figure(metric)).collect()));
            for (metric, value) in METRICS.into_iter().zip(medians) {
                let unit = if BYTES.contains(&metric) { "bytes" } else { "ms" };
                rows.add(&format!("{memory_mib}/{rewritten_mib}/{metric}"), value, unit)?;
            }
            let ratio = median(runs.iter().map(Run::ratio).collect());
            rows.add(&format!("{memory_mib}/{rewritten_mib}/ratio"), ratio, "ratio")?;
            let [pause_ms, compare_ms] =
                ["pause", "compare"].map(|metric| median(runs.iter().map(|run| run.figure(metric)).collect()));
            eprintln!(
                "{memory_mib:>5} MiB, {rewritten_mib:>3} rewritten: pause {pause_ms:.1} ms, compare pass {compare_ms:.1} ms, {ratio:.2} of the bound"
            );
        }
        scene.cluster.shut_down()?;
    }
    let ratios = results::rows(&path)?.into_iter().filter(|row| row.name.ends_with("/ratio")).map(|row| row.value);
    rows.add(WORST, ratios.reduce(f64::max).ok_or("no pause was measured")?, "ratio")
}

/// The row that the bound is held against.
const WORST: &str = "worst/ratio";

const METRICS: [&str; 10] =
    ["in-use", "pause", "stop", "device state", "copy", "cont", "read", "copied", "compare", "bound"];
const BYTES: [&str; 3] = ["in-use", "read", "copied"];

/// One commit: its summary, and the compare pass after it.
struct Run {
    summary: Value,
    compare_ms: f64,
}

impl Run {
    /// NaN for what the summary does not tell.
    fn figure(&self, metric: &str) -> f64 {
        let figure = |name: &str| number(&self.summary[name]).unwrap_or(f64::NAN);
        match metric {
            "in-use" => figure("ram_allocated_bytes"),
            "pause" => figure("pause_ns") / 1e6,
            "read" => figure("paused_read_bytes"),
            "copied" => figure("paused_written_bytes"),
            "compare" => self.compare_ms,
            "bound" => BOUND_MS + 2.0 * self.compare_ms,
            part => number(&self.summary["pause_parts_ns"][part]).unwrap_or(f64::NAN) / 1e6,
        }
    }

    fn ratio(&self) -> f64 {
        self.figure("pause") / self.figure("bound")
    }
}

/// Two guests of one cluster, each on a node of its own.
struct Guests {
    cluster: Cluster,
    guests: Vec<Guest>,
}

impl Guests {
    fn boot(settings: &Settings, memory_mib: u64) -> Result<Guests> {
        let plan = (0..2).map(|_| NodeOptions::local()).collect::<form_tests::Result<_>>()?;
        let assets = Assets { memory_mib, ..Assets::find()? };
        let cluster = nodes::start(settings, assets, Scene::new()?, plan)?;
        let guests = cluster.boot_all("guest", 2)?;
        let mut scene = Guests { cluster, guests };
        let most_mib = REWRITTEN_MIB.into_iter().max().unwrap_or(0);
        let source = scene.source()?;
        source.run("mount -o remount,size=90% /tmp")?;
        source.run(&format!(
            "for f in a b; do dd if=/dev/urandom of=/tmp/$f bs=1M count={PIECE_MIB} 2> /dev/null; done"
        ))?;
        source.run(&format!("cat > /tmp/writer << 'EOF'{WRITER}EOF"))?;
        source.run(&format!(": > /tmp/set; perl /tmp/writer {most_mib} once"))?;
        let fill_mib = (memory_mib as f64 * IN_USE) as u64;
        for number in 0..fill_mib.saturating_sub(most_mib + 2 * PIECE_MIB) / PIECE_MIB {
            source.run(&format!("cat /tmp/a > /tmp/fill-{number}"))?;
        }
        // What was filled is not what is measured.
        commit(&scene.cluster.form(1), "guest-1", &[])?;
        Ok(scene)
    }

    fn source(&mut self) -> Result<&mut Guest> {
        self.guests.first_mut().ok_or_else(|| "no guest".into())
    }

    fn commit(&mut self, rewritten_mib: u64) -> Result<Run> {
        until_idle([1, 2].map(|number| self.cluster.node_ref(number)).into_iter())?;
        if rewritten_mib > 0 {
            self.source()?.run(&format!("(perl /tmp/writer {rewritten_mib} & echo $! > /tmp/pid)"))?;
        }
        let (_, _, summary) = commit(&self.cluster.form(1), "guest-1", &[])?;
        if rewritten_mib > 0 {
            // The target has become the source, its writer too.
            for guest in &mut self.guests {
                guest.attach()?;
                guest.run("kill $(cat /tmp/pid)")?;
            }
        }
        until_idle([1, 2].map(|number| self.cluster.node_ref(number)).into_iter())?;
        let node = self.cluster.node_ref(1);
        let roots = summary["artifacts"].as_array().into_iter().flatten();
        let memory = roots.clone().find(|artifact| artifact["name"] == "memory").ok_or("a commit without memory")?;
        let base = base(node, memory["root"].as_str().unwrap_or_default())?;
        let compare_ms = compare_ms(&base, &only_live(node, "memory.img")?)?;
        Ok(Run { summary, compare_ms })
    }
}

/// The fastest of some passes, without the time that the process takes to begin: so it is the sharpest bound there is.
fn compare_ms(base: &Path, live: &Path) -> Result<f64> {
    let mut fastest = f64::INFINITY;
    for _ in 0..COMPARE_PASSES {
        let told = nodes::yardstick("compare", &[base, live])?;
        fastest = fastest.min(number(&told["compare_s"])? * 1000.0);
    }
    Ok(fastest)
}
