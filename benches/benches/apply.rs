//! `apply` beside its limits, in the same run: a plain copy of the base (`cp`), writes of the same size, and one full read of the result.
//!
//! `FORM_BENCH_MIB` sets the size of the image (default 2048), `FORM_BENCH_DIR` where it is, `FORM_BENCH_JSON` a file that gets the figures. Each round writes into
//! a new clone of the base that is durable and in the page cache, as a standby is. Times are medians of alternating rounds.

use std::{
    fs::{self, File, OpenOptions},
    hint::black_box,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use form_benches::{
    Result,
    results::{Rows, median},
};
use form_delta::{
    Base, Engine, Hash, Image, Manifest, Plan, Spool, apply, clone_image, diff, encode, generate::noise, plan, scan,
    verify_chunks, verify_image,
};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    // `cargo test --benches` runs this without `--bench`: then it only has to work.
    let size_mib = match std::env::args().any(|arg| arg == "--bench") {
        true => std::env::var("FORM_BENCH_MIB").map_or(Ok(2048), |size| size.parse())?,
        false => 16,
    };
    let dir = match std::env::var_os("FORM_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let base_path = dir.path().join("base");
    write_base(&base_path, size_mib)?;
    println!("{size_mib} MiB image");
    let mut rows = Rows::of("apply")?;
    clones(dir.path(), &base_path, &mut rows)?;

    let blocks = size_mib * 256;
    // One block in each hundred, somewhere in it; and runs of 1 MiB, at most a hundred, as far apart as they can be.
    let scattered: Vec<usize> = (0..blocks / 100).map(|n| n * 100 + n * 37 % 100).collect();
    let runs = 100.min(size_mib / 2);
    let run_blocks = (0..runs).flat_map(|n| (0..256).map(move |block| n * (blocks / runs) + block)).collect();
    println!("| change | MiB written | writes | engine | apply s | MiB/s | verify new s | verify full s |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, changed) in [("1 % in blocks of 4 KiB", scattered), ("100 runs of 1 MiB", run_blocks)] {
        let change = Change::new(dir.path(), &base_path, &changed)?;
        change.measure(dir.path(), &base_path, name, &mut rows)?;
    }
    Ok(())
}

fn write_base(path: &Path, size_mib: usize) -> Result<()> {
    let file = File::create_new(path)?;
    for number in 0..size_mib {
        file.write_all_at(&noise(number as u64, MIB), (number * MIB) as u64)?;
    }
    Ok(file.sync_all()?)
}

/// A clone beside `cp --sparse=always` and plain `cp`, all durable.
fn clones(dir: &Path, base: &Path, rows: &mut Rows) -> Result<()> {
    let mut times = [(); 3].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for (way, times) in ["", "--sparse=always", "--sparse=auto"].into_iter().zip(&mut times) {
            let to = dir.join("clone");
            times.push(seconds(|| {
                match way {
                    "" => drop(clone_image(base, &to)?),
                    way => drop(Command::new("cp").args([way, "--reflink=never"]).args([base, &to]).status()?),
                }
                Ok(File::open(&to)?.sync_all()?)
            })?);
            fs::remove_file(&to)?;
        }
    }
    let [ours, sparse, plain] = times.map(median);
    println!("clone {ours:.2} s, cp --sparse=always {sparse:.2} s, cp {plain:.2} s\n");
    rows.add("clone", ours, "s")?;
    rows.add("clone / cp --sparse=always", ours / sparse, "ratio")
}

/// What turns the base into a new image.
struct Change {
    base: Image,
    plan: Plan,
    spool: Spool,
    manifest: Manifest,
}

impl Change {
    fn new(dir: &Path, base_path: &Path, blocks: &[usize]) -> Result<Change> {
        let new_path = dir.join("new");
        clone_image(base_path, &new_path)?;
        let file = OpenOptions::new().write(true).open(&new_path)?;
        for block in blocks {
            file.write_all_at(&noise(1 << 40 | *block as u64, BLOCK), (block * BLOCK) as u64)?;
        }
        let (base, new) = (Image::open(base_path)?, Image::open(&new_path)?);
        let base_manifest = scan(&base);
        let found = diff(&base, &base_manifest, &new)?;
        let frames = dir.join("frames");
        let mut out = File::create(&frames)?;
        let bases = [Base { image: &base, manifest: &base_manifest, blocks: None }];
        let encoded = encode(&bases, &new, &found.manifest, &found.changed, &mut out, &mut |_, _| {})?;
        fs::remove_file(new_path)?;
        let spool = Spool::full(File::open(frames)?, encoded.index.clone());
        let plan = plan(&encoded.index, &spool, &[&base_manifest])?;
        Ok(Change { manifest: found.manifest, base, plan, spool })
    }

    fn measure(&self, dir: &Path, base_path: &Path, name: &str, rows: &mut Rows) -> Result<()> {
        let engines = [Engine::Pwrite, Engine::Uring];
        let mut times = [(); 2].map(|()| [(); 3].map(|()| Vec::new()));
        let mut done = None;
        for _ in 0..ROUNDS {
            for (engine, times) in engines.into_iter().zip(&mut times) {
                let path = self.clone(dir, base_path)?;
                let out = OpenOptions::new().read(true).write(true).open(&path)?;
                times[0].push(seconds(|| {
                    let applied = apply(&self.plan, &self.spool, &[&self.base], &out, engine, &mut |_, _| {})?;
                    done = Some(applied);
                    Ok(())
                })?);
                let new = self.manifest.changed_since(&scan_of(base_path)?);
                times[1].push(seconds(|| Ok(verify_chunks(&out, &self.manifest, &new)?))?);
                times[2].push(seconds(|| Ok(verify_image(&out, &self.manifest)?))?);
                fs::remove_file(path)?;
            }
        }
        let Some(done) = done else { return Ok(()) };
        for (engine, times) in engines.into_iter().zip(times) {
            let [apply, verify_new, verify_full] = times.map(median);
            let mib = done.bytes_written as f64 / MIB as f64;
            println!(
                "| {name} | {mib:.0} | {} | {engine} | {apply:.3} | {:.0} | {verify_new:.3} | {verify_full:.3} |",
                done.writes,
                mib / apply
            );
            rows.add(&format!("{name}, {engine}"), apply, "s")?;
            rows.add(&format!("{name}, {engine}, verify full"), verify_full, "s")?;
        }
        Ok(())
    }

    /// Durable, and in the page cache.
    fn clone(&self, dir: &Path, base_path: &Path) -> Result<PathBuf> {
        let path = dir.join("out");
        clone_image(base_path, &path)?;
        let file = File::open(&path)?;
        file.sync_all()?;
        let mut buffer = vec![0; MIB];
        for at in (0..file.metadata()?.len()).step_by(MIB) {
            file.read_at(&mut buffer, at)?;
        }
        black_box(Hash::of(&buffer));
        Ok(path)
    }
}

/// The base's manifest, made once.
fn scan_of(base: &Path) -> Result<Manifest> {
    let kept = base.with_extension("manifest");
    if !kept.exists() {
        fs::write(&kept, scan(&Image::open(base)?).encode())?;
    }
    Ok(Manifest::decode(&fs::read(kept)?)?)
}

fn seconds<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    black_box(work()?);
    Ok(start.elapsed().as_secs_f64())
}
