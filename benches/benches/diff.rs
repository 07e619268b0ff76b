//! `diff` of two images beside a `memcmp` of the same bytes, in the same run: how far from the speed of memory the search for changes is.
//!
//! `FORM_BENCH_MIB` sets the size of the images (default 512). Times are medians of alternating rounds.

use std::{fs::File, hint::black_box, os::unix::fs::FileExt, path::Path, thread, time::Instant};

use form_delta::{Image, diff, generate::noise, scan};

const MIB: usize = 1 << 20;
const ROUNDS: usize = 7;
/// Whether the block of 4 KiB of that number is another one in the new image.
type IsChanged = fn(usize) -> bool;
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // `cargo test --benches` runs this without `--bench`: then it only has to work.
    let size_mib = match std::env::args().any(|arg| arg == "--bench") {
        true => std::env::var("FORM_BENCH_MIB").map_or(Ok(512), |size| size.parse())?,
        false => 8,
    };
    let dir = tempfile::tempdir()?;
    let base = image(&dir.path().join("base"), size_mib, |_| false)?;
    // Mappings of their own for the limit: `diff` maps what it looks at, and lets it go.
    let base_again = Image::open(&dir.path().join("base"))?;
    let base_manifest = scan(&base);
    println!("{size_mib} MiB of data in each image, {} CPUs", thread::available_parallelism()?);
    println!("| change | changed MiB | memcmp, 1 thread GiB/s | memcmp, all GiB/s | diff GiB/s | diff / memcmp, all |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let changes: [(&str, IsChanged); 3] = [
        ("none", |_| false),
        ("1 % in runs of 1 MiB", |block| (block / 256).is_multiple_of(100)),
        ("1 % in blocks of 4 KiB", |block| block.is_multiple_of(100)),
    ];
    for (number, (name, is_changed)) in changes.into_iter().enumerate() {
        let path = dir.path().join(number.to_string());
        let new = image(&path, size_mib, is_changed)?;
        let new_again = Image::open(&path)?;
        let mut times = [(); 3].map(|()| Vec::new());
        let mut changed_bytes = 0;
        for _ in 0..ROUNDS {
            times[0].push(seconds(|| compare(&base_again, &new_again, 1)));
            times[1].push(seconds(|| {
                compare(&base_again, &new_again, thread::available_parallelism().map_or(1, usize::from))
            }));
            let start = Instant::now();
            let found = diff(&base, &base_manifest, &new)?;
            times[2].push(start.elapsed().as_secs_f64());
            changed_bytes = found.changed.iter().map(|extent| extent.len_bytes()).sum();
        }
        let [one, all, ours] = times.map(|times| size_mib as f64 / 1024.0 / median(times));
        println!("| {name} | {} | {one:.1} | {all:.1} | {ours:.1} | {:.2} |", changed_bytes / MIB as u64, ours / all);
    }
    Ok(())
}

/// A file of noise in which the named blocks of 4 KiB are other noise.
fn image(path: &Path, size_mib: usize, is_changed: IsChanged) -> Result<Image> {
    let file = File::create_new(path)?;
    for number in 0..size_mib {
        let mut bytes = noise(number as u64, MIB);
        for (block, bytes) in bytes.chunks_exact_mut(4096).enumerate() {
            if is_changed(number * 256 + block) {
                bytes.iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        file.write_all_at(&bytes, (number * MIB) as u64)?;
    }
    Ok(Image::open(path)?)
}

/// Counts blocks that differ, with `memcmp` and nothing else.
fn compare(base: &Image, new: &Image, threads: usize) -> usize {
    let part = base.as_slice().len().div_ceil(threads).next_multiple_of(4096);
    let count = |base: &[u8], new: &[u8]| {
        let blocks = base.chunks(4096).zip(new.chunks(4096));
        blocks.filter(|(base, new)| base != new).count()
    };
    thread::scope(|scope| {
        let parts = base.as_slice().chunks(part).zip(new.as_slice().chunks(part));
        let running: Vec<_> = parts.map(|(base, new)| scope.spawn(move || count(base, new))).collect();
        running.into_iter().map(|part| part.join().unwrap_or_default()).sum()
    })
}

fn seconds<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
