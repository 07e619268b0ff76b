//! Each stage of a delta beside its physical limit, in the same run and on as many CPUs.
//!
//! `FORM_BENCH_MIB` sets the size of the images (default 512). Figures are medians of alternating rounds; with `FORM_BENCH_JSON=path` each is appended there.
//! A stage that does more than its limit can't reach it: `chunk` cuts and hashes every byte, where its limit is a copy. The rows say how far away each one is.

use std::{fs::File, hint::black_box, io::Write, os::unix::fs::FileExt, path::Path, thread, time::Instant};

use form_benches::{
    Result,
    results::{Rows, median},
};
use form_delta::{
    Encoded, Engine, Image, Manifest, Plan, Spool, apply, clone_image, diff, encode, generate::noise,
    limits::ZSTD_LEVEL, plan, scan, verify_image,
};

const MIB: usize = 1 << 20;
const ROUNDS: usize = 5;
/// What is hashed and compressed at a time at the limits: an average chunk, and a frame.
const HASH_BYTES: usize = 64 << 10;
const ZSTD_BYTES: usize = MIB;

fn main() -> Result<()> {
    // `cargo test --benches` runs this without `--bench`: then it only has to work.
    let size_mib = match std::env::args().any(|arg| arg == "--bench") {
        true => std::env::var("FORM_BENCH_MIB").map_or(Ok(512), |size| size.parse())?,
        false => 8,
    };
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let base = image(&path("base"), size_mib, |_| false)?;
    let manifest = scan(&base);
    println!("{size_mib} MiB of data in each image, {} CPUs", cpus());
    println!("| stage | GiB/s | limit | GiB/s | stage / limit |");
    println!("| --- | ---: | --- | ---: | ---: |");
    let mut table = Table { rows: Rows::of("micro")?, size_mib };

    for (name, is_changed) in CHANGES {
        let new = image(&path(name), size_mib, is_changed)?;
        let memcmp = || on_all_cpus(base.as_slice(), &|offset, bytes| same(bytes, &new.as_slice()[offset..]));
        table.row(name, || diff(&base, &manifest, &new).map(drop), "memcmp", memcmp)?;
    }

    let bytes = base.as_slice();
    let memcpy = || {
        on_all_cpus(bytes, &|_, bytes| {
            let mut copy = vec![0; MIB];
            bytes.chunks_exact(MIB).for_each(|piece| black_box(&mut copy).copy_from_slice(piece));
        });
    };
    let chunk = || {
        black_box(scan(&base));
        Ok(())
    };
    table.row("chunk: scan of all", chunk, "memcpy of 1 MiB", memcpy)?;

    let file = File::open(path("base"))?;
    let blake3 = || {
        on_all_cpus(bytes, &|_, bytes| {
            bytes.chunks(HASH_BYTES).for_each(|chunk| {
                black_box(blake3::hash(chunk));
            });
        });
    };
    table.row("hash: verify of all", || verify_image(&file, &manifest), "BLAKE3 of 64 KiB", blake3)?;

    let new = image(&path("records"), size_mib / 4, |_| true)?;
    let new_manifest = scan(&new);
    let zstd = || {
        on_all_cpus(new.as_slice(), &|_, bytes| {
            let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
            bytes.chunks(ZSTD_BYTES).for_each(|chunk| {
                black_box(compressor.as_mut().map(|compressor| compressor.compress(chunk)));
            });
        });
    };
    table.size_mib = size_mib / 4;
    table.row(
        "compress: encode of all",
        || full(&new, &new_manifest, &mut std::io::sink()).map(drop),
        "zstd of 1 MiB",
        zstd,
    )?;

    let mut frames = File::options().create(true).truncate(true).read(true).write(true).open(path("frames"))?;
    let encoded = full(&new, &new_manifest, &mut frames)?;
    let frame_bytes = std::fs::read(path("frames"))?;
    let spool = Spool::full(frames, encoded.index.clone());
    let blake3 = || {
        for frame in frame_bytes.chunks(MIB) {
            black_box(blake3::hash(frame));
        }
    };
    table.row("plan of all", || plan_full(&encoded, &spool).map(drop), "BLAKE3 of the frames", blake3)?;

    let planned = plan_full(&encoded, &spool)?;
    let rebuild = || {
        let out = File::options().create(true).truncate(true).read(true).write(true).open(path("rebuilt")).ok();
        out.map_or(Ok(()), |out| apply(&planned, &spool, &[], &out, Engine::probe().0, &mut |_, _| {}).map(drop))
    };
    let cp = || {
        let copied = clone_image(&path("records"), &path("copied"));
        black_box(copied.is_ok() && File::open(path("copied")).and_then(|file| file.sync_all()).is_ok());
        let _ = std::fs::remove_file(path("copied"));
    };
    table.row("apply of all", rebuild, "cp and fsync", cp)
}

/// Whether the block of 4 KiB of that number is another one in the new image.
type IsChanged = fn(usize) -> bool;
const CHANGES: [(&str, IsChanged); 3] = [
    ("compare: nothing changed", |_| false),
    ("compare: 1 % in runs of 1 MiB", |block| (block / 256).is_multiple_of(100)),
    ("compare: 1 % in blocks of 4 KiB", |block| block.is_multiple_of(100)),
];

/// Encodes an image without a base.
fn full(new: &Image, manifest: &Manifest, out: &mut dyn Write) -> form_delta::Result<Encoded> {
    encode(&[], new, manifest, &[], out, &mut |_, _| {})
}

/// Plans its rebuild.
fn plan_full(encoded: &Encoded, spool: &Spool) -> form_delta::Result<Plan> {
    plan(&encoded.index, spool, &[])
}

/// A file of records like a log's, which compress about three to one, in which the named blocks of 4 KiB are other records.
fn image(path: &Path, size_mib: usize, is_changed: IsChanged) -> Result<Image> {
    let file = File::create(path)?;
    for number in 0..size_mib {
        let mut bytes = records(number as u64);
        for (block, bytes) in bytes.chunks_exact_mut(4096).enumerate() {
            if is_changed(number * 256 + block) {
                bytes.iter_mut().for_each(|byte| *byte ^= 1);
            }
        }
        file.write_all_at(&bytes, (number * MIB) as u64)?;
    }
    file.sync_all()?;
    Ok(Image::open(path)?)
}

/// 1 MiB of lines with a few random fields each.
fn records(seed: u64) -> Vec<u8> {
    const WORDS: [&str; 8] = ["GET", "POST", "found", "missing", "cached", "expired", "retry", "closed"];
    let mut bytes = Vec::with_capacity(MIB + 128);
    for field in noise(seed, MIB / 4).as_chunks::<8>().0 {
        let [word, other, a, b, c, d, e, f] = *field;
        let (word, other) = (WORDS[usize::from(word % 8)], WORDS[usize::from(other % 8)]);
        let line = format!(
            "2026-11-23T{:02}:{:02}:{:02} web[{}]: {word} /item/{d}{e} {other} key={a:02x}{b:02x}{c:02x}{f:02x}\n",
            a % 24,
            b % 60,
            c % 60,
            d % 16
        );
        bytes.extend(line.into_bytes());
        if bytes.len() >= MIB {
            break;
        }
    }
    bytes.resize(MIB, b'\n');
    bytes
}

/// Figures as they come: printed, and written as rows.
struct Table {
    rows: Rows,
    size_mib: usize,
}

impl Table {
    /// A stage and its limit, in turns.
    fn row(
        &mut self,
        name: &str,
        mut stage: impl FnMut() -> form_delta::Result<()>,
        limit_name: &str,
        mut limit: impl FnMut(),
    ) -> Result<()> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let start = Instant::now();
            stage()?;
            times[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            limit();
            times[1].push(start.elapsed().as_secs_f64());
        }
        let [ours, best] = times.map(|times| self.size_mib as f64 / 1024.0 / median(times));
        println!("| {name} | {ours:.2} | {limit_name} | {best:.2} | {:.2} |", ours / best);
        self.rows.add(name, ours, "GiB/s")?;
        self.rows.add(&format!("{name}, limit: {limit_name}"), best, "GiB/s")?;
        self.rows.add(&format!("{name}, share of its limit"), ours / best, "ratio")
    }
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Calls `work` with a part of `bytes` and its offset on each CPU.
fn on_all_cpus(bytes: &[u8], work: &(dyn Fn(usize, &[u8]) + Sync)) {
    let part = bytes.len().div_ceil(cpus()).next_multiple_of(MIB);
    thread::scope(|scope| {
        for (number, bytes) in bytes.chunks(part).enumerate() {
            scope.spawn(move || work(number * part, bytes));
        }
    });
}

/// Compares block by block with `memcmp` and nothing else.
fn same(left: &[u8], right: &[u8]) {
    black_box(left.chunks(4096).zip(right.chunks(4096)).filter(|(left, right)| left != right).count());
}
