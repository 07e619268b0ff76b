//! How time, bytes and memory of `form delta` grow: with the image at a fixed change, and with the change at a fixed size.
//!
//! Rows are named `series/x/metric`.

use std::{fs, path::Path, process::Command, time::Instant};

use form_delta::{Image, diff, rechunk, scan};

use crate::{
    Result,
    process::Usage,
    results::{Rows, median},
    settings::Settings,
    shape::{GIB, MIB, Shape},
};

/// Runs the series that `FORM_BENCH_ONLY` names (`size`, `change`, `hint`; default all) and writes their rows.
pub fn run(settings: &Settings) -> Result<()> {
    fs::create_dir_all(&settings.dir)?;
    let room = tempfile::tempdir_in(&settings.dir)?;
    let mut rows = Rows::in_file("growth", &settings.dir.join("growth.jsonl"), |row| {
        !settings.wants_pair(row.name.split('/').next().unwrap_or_default())
    })?;
    // 256 MiB of data all over the image, 16 of them changed.
    for size_gib in [1, 2, 4, 8, 16, 32, 64].into_iter().filter(|_| settings.wants_pair("size")) {
        let shape = Shape { image_bytes: size_gib * GIB, data_mib: 256, is_changed: |number| number % 16 == 7 };
        measure(settings, room.path(), &mut rows, &format!("size/{size_gib}"), shape)?;
    }
    const DATA_MIB: u64 = 1024;
    for percent in [0, 1, 2, 5, 10, 25, 50, 75, 100].into_iter().filter(|_| settings.wants_pair("change")) {
        // Spread evenly: a run is changed when its share of the percentage passes a whole number.
        let is_changed = move |number: u64| (number + 1) * percent / 100 > number * percent / 100;
        let shape = Shape { image_bytes: DATA_MIB * MIB, data_mib: DATA_MIB, is_changed };
        measure(settings, room.path(), &mut rows, &format!("change/{percent}"), shape)?;
    }
    if settings.wants_pair("hint") {
        hint(settings, room.path(), &mut rows)?;
    }
    Ok(())
}

/// One update through the command line, in rounds, beside a compare pass.
fn measure<F: Fn(u64) -> bool>(
    settings: &Settings,
    room: &Path,
    rows: &mut Rows,
    x: &str,
    shape: Shape<F>,
) -> Result<()> {
    let (base, new) = shape.pair(room)?;
    let (patch, standby, out) = (room.join("patch"), room.join("standby"), room.join("out"));
    let delta = |verb: &str| {
        let mut command = Command::new(&settings.form);
        command.args(["delta", verb]);
        command
    };
    let mut index = Usage::default();
    index.run(delta("index").arg(&base))?;
    Usage::default().run(Command::new("cp").args(["--sparse=always", "--reflink=never"]).arg(&base).arg(&standby))?;
    let mut used: [Vec<Usage>; 3] = Default::default();
    let mut bytes = 0;
    for _ in 0..settings.rounds {
        let mut runs = [Usage::default(); 3];
        let [compare, make, apply] = &mut runs;
        let yardstick = |verb: &str| {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["yardstick", verb]);
            Result::Ok(command)
        };
        Usage::default().run(delta("standby").arg("--base").arg(&base).arg(&standby))?;
        compare.run(yardstick("compare")?.arg(&base).arg(&new))?;
        make.run(delta("make").arg("--base").arg(&base).arg("--new").arg(&new).arg("--out").arg(&patch))?;
        let mut command = delta("apply");
        command
            .arg("--base")
            .arg(&base)
            .arg("--delta")
            .arg(&patch)
            .arg("--standby")
            .arg(&standby)
            .arg("--out")
            .arg(&out);
        apply.run(&mut command)?;
        Usage::default().run(yardstick("same")?.arg(&out).arg(&new))?;
        fs::rename(&out, &standby)?;
        Usage::default().run(yardstick("reset")?.arg(&standby).arg(&base))?;
        bytes = fs::metadata(&patch)?.len();
        fs::remove_file(&patch)?;
        used.iter_mut().zip(runs).for_each(|(all, run)| all.push(run));
    }
    let of = |usages: &[Usage], value: fn(&Usage) -> f64| median(usages.iter().map(value).collect());
    rows.add(&format!("{x}/bytes"), bytes as f64, "bytes")?;
    rows.add(&format!("{x}/index"), index.wall_s, "s")?;
    for (name, usages) in ["compare", "make", "apply"].iter().zip(&used) {
        let (wall_s, private_bytes) =
            (of(usages, |usage| usage.wall_s), of(usages, |usage| usage.private_bytes as f64));
        eprintln!("{x:<10} {name:<8} {wall_s:>8.3} s {:>6.0} MiB", private_bytes / MIB as f64);
        rows.add(&format!("{x}/{name}"), wall_s, "s")?;
        rows.add(&format!("{x}/{name}-private"), private_bytes, "bytes")?;
    }
    // Anything beside them, an index for one, goes with them.
    for entry in fs::read_dir(room)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// The new manifest of a 16 GiB image, when it is known what changed and when it must be found out: 1 % of its data, in runs of 1 MiB.
///
/// Compression costs the same with and without, so it is left out. Two images full of data would not fit into the page cache of a small machine, and measure its
/// disk: `FORM_BENCH_GIB` says how much data there is (default 2).
fn hint(settings: &Settings, room: &Path, rows: &mut Rows) -> Result<()> {
    let data_gib: u64 = std::env::var("FORM_BENCH_GIB").map_or(Ok(2), |size| size.parse())?;
    let shape = Shape { image_bytes: 16 * GIB, data_mib: data_gib * 1024, is_changed: |number| number % 100 == 7 };
    let (base, new) = shape.pair(room)?;
    let (base, new) = (Image::open(&base)?, Image::open(&new)?);
    let base_manifest = scan(&base);
    let found = diff(&base, &base_manifest, &new)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds.max(3) {
        let start = Instant::now();
        diff(&base, &base_manifest, &new)?;
        without.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        if rechunk(&new, &base_manifest, found.changed.clone())? != found.manifest {
            return Err("the manifest made with a hint is another one".into());
        }
        with.push(start.elapsed().as_secs_f64());
    }
    let (without, with) = (median(without), median(with));
    eprintln!("hint: {with:.4} s, without {without:.4} s, ratio {:.3}", with / without);
    rows.add("hint/without", without, "s")?;
    rows.add("hint/with", with, "s")?;
    rows.add("hint/ratio", with / without, "ratio")
}
