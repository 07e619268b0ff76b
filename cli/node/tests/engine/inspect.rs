//! What is looked at after something went wrong.

use std::fs::File;
use std::path::{Path, PathBuf};

use form_delta::{Hash, Manifest, Standby};

use crate::scene::{PAGE, Scene};

/// The one page of its disk that a target's guest writes to.
pub(crate) const TARGETS_OWN_PAGE: u64 = 60;

pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.map(|entry| entry.expect("entry")) {
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn manifest(path: &Path) -> Option<Manifest> {
    Manifest::decode(&std::fs::read(path).ok()?).ok()
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}

/// Every base image of a node is what its name and its manifest say.
pub(crate) fn bases_are_whole(data: &Path) {
    for image in files_below(&data.join("clusters")).iter().filter(|path| has_extension(path, "img")) {
        let root: Hash = image.file_stem().and_then(|stem| stem.to_str()).expect("a name").parse().expect("a root");
        let manifest = manifest(&image.with_extension("manifest"));
        let manifest = manifest.unwrap_or_else(|| panic!("{} has no manifest", image.display()));
        assert_eq!(manifest.root(), root);
        let file = File::open(image).expect("open");
        form_delta::verify_image(&file, &manifest).unwrap_or_else(|error| panic!("{}: {error}", image.display()));
    }
}

/// Every standby of a node that is not running is what its record says, if that says what it is.
pub(crate) fn records_are_true(data: &Path) {
    for image in files_below(&data.join("standby")).iter().filter(|path| has_extension(path, "img")) {
        let standby = Standby::open(image).expect("nobody has it");
        let Some(root) = standby.root() else { continue };
        let name = image.file_name().and_then(|name| name.to_str()).expect("a name");
        let artifact = name.split('.').next().expect("a name");
        let beside = image.with_file_name(format!("{artifact}.{root}.manifest"));
        // Without its manifest nobody can use it.
        let Some(manifest) = manifest(&beside) else { continue };
        let file = File::open(image).expect("open");
        let verified = form_delta::verify_image(&file, &manifest);
        verified.unwrap_or_else(|error| panic!("the record of {} is not true: {error}", image.display()));
    }
}

/// Nothing that is only there while something is being done.
pub(crate) async fn nothing_is_left_over(scene: &Scene) {
    let passing = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with("new") || name.starts_with("probe") || path.components().any(|part| part.as_os_str() == "trash")
    };
    // What the blocks of a base are is listed at leisure.
    let left = || -> Vec<_> {
        let files = scene.nodes.iter().flat_map(|node| files_below(&node.data));
        files.filter(|path| passing(path)).collect()
    };
    let gone = async || left().is_empty();
    if tokio::time::timeout(std::time::Duration::from_secs(5), scene.wait_for("no leftovers", gone)).await.is_err() {
        panic!("left over: {:#?}", left());
    }
}

/// The disk of an instance that went back to its commit holds that commit's bytes but where its guest writes.
pub(crate) async fn disk_is_what_it_was(scene: &Scene, name: &str) {
    let [live, base] = [scene.live(name, "root"), scene.base(name, "root").await].map(std::fs::read);
    let (live, base) = (live.expect("read"), base.expect("read"));
    assert_eq!(live.len(), base.len());
    let page = PAGE as usize;
    for number in (0..live.len() / page).filter(|number| *number as u64 != TARGETS_OWN_PAGE) {
        let at = number * page..(number + 1) * page;
        assert!(live[at.clone()] == base[at], "page {number} of the disk of {name} has changed");
    }
}
