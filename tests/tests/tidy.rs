//! What the repository looks like: the house rules that a program can check.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Above it a file is a design question.
const LINES_MAX: usize = 500;

/// What is promised, by number.
const PROMISES: std::ops::RangeInclusive<u32> = 1..=10;

/// Which of our crates each crate may depend on. Nothing points back up.
const ARROWS: [(&str, &[&str]); 9] = [
    ("form-delta", &[]),
    ("form-proto", &[]),
    ("form-transport", &["form-proto", "form-delta"]),
    ("form-vmm-hooks", &[]),
    ("form-node", &["form-transport", "form-proto", "form-vmm-hooks", "form-delta"]),
    ("form", &["form-node", "form-delta"]),
    ("form-fuzz", &["form-delta"]),
    ("form-benches", &["form-transport", "form-delta", "form-tests"]),
    ("form-tests", &["form-node", "form-delta"]),
];

/// Lines of form-node, outside of its store, that may name how a commit ended, at most; and what they do there. None of
/// them decides what happens next: that is form-proto's.
const OUTCOME_LINES: [(&str, usize, &str); 6] = [
    ("cli/node/src/engine/coordinate.rs", 11, "the store's answers, as the machines know them; events"),
    ("cli/node/src/engine/core_impl.rs", 3, "how an attempt is shown"),
    ("cli/node/src/engine/hints.rs", 3, "the effect of an outcome on what QEMU recorded"),
    ("cli/node/src/engine/participate.rs", 2, "what travels beside a message"),
    ("cli/node/src/engine/seed.rs", 1, "whoever joins waits for the first commit"),
    ("cli/node/src/engine/serve.rs", 4, "a message is held against the store; events"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate is in the repository").to_owned()
}

/// Every text file that belongs to the repository, and its text. This file is left out: it names what it looks for.
fn files() -> BTreeMap<String, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let names = names.split_terminator('\0').filter(|name| *name != "tests/tests/tidy.rs");
    let files: BTreeMap<String, String> =
        names.filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?))).collect();
    assert!(files.len() > 100, "these are not all of the repository's files: {:?}", files.keys());
    files
}

fn rust_files() -> BTreeMap<String, String> {
    files().into_iter().filter(|(name, _)| name.ends_with(".rs")).collect()
}

/// `file:line: text` of each line that `is_bad`.
fn lines_that(files: &BTreeMap<String, String>, is_bad: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in files {
        for (number, line) in text.lines().enumerate() {
            if is_bad(name, line) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn a_file_is_one_idea() {
    let files = rust_files();
    let long = files.iter().map(|(name, text)| (name, text.lines().count())).filter(|(_, lines)| *lines > LINES_MAX);
    none("files too long", &long.map(|(name, lines)| format!("{name}: {lines} lines")).collect::<Vec<_>>());
    let drawers = ["util.rs", "utils.rs", "helpers.rs", "common.rs", "misc.rs", "tests2.rs"];
    let is_drawer = |name: &&String| name.rsplit('/').next().is_some_and(|file| drawers.contains(&file));
    none("files named after nothing", &files.keys().filter(is_drawer).cloned().collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_open() {
    let left = ["todo!(", "unimplemented!(", "FIXME", "XXX", "HACK"];
    none("left open", &lines_that(&rust_files(), |_, line| left.iter().any(|mark| line.contains(mark))));
}

#[test]
fn lint_exceptions_have_reasons() {
    let files = rust_files();
    let bare = |line: &str| line.contains("#[allow(") || line.contains("#![allow(");
    none("allow where expect would do", &lines_that(&files, |_, line| bare(line)));
    let mut without = Vec::new();
    for (name, text) in &files {
        let attributes = text.match_indices("#[expect(").chain(text.match_indices("#![expect("));
        for (place, _) in attributes {
            let attribute = text[place..].split(")]").next().unwrap_or_default();
            if !attribute.contains("reason =") {
                without.push(format!("{name}: {attribute}"));
            }
        }
    }
    none("exceptions without a reason", &without);
}

/// Skipped tests stand in one file with their reasons; the run says how many there are.
#[test]
fn skipped_tests_are_listed_with_a_reason() {
    #[derive(serde::Deserialize)]
    struct Skipped {
        #[serde(default)]
        skipped: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        test: String,
        reason: String,
    }
    let list = std::fs::read_to_string(root().join("tests/skipped.toml")).expect("the list of skipped tests");
    let list: Skipped = toml::from_str(&list).expect("the list of skipped tests is TOML");
    assert!(list.skipped.iter().all(|entry| entry.reason.len() > 10), "each has a reason");
    let listed: BTreeSet<String> = list.skipped.iter().map(|entry| entry.test.clone()).collect();

    let mut ignored = BTreeSet::new();
    for (name, text) in rust_files() {
        for (place, _) in text.match_indices("#[ignore") {
            let test = text[place..].split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next());
            ignored.insert(test.unwrap_or_else(|| panic!("{name}: an #[ignore] without a test")).to_owned());
        }
    }
    assert_eq!(ignored, listed, "ignored in the code (left), listed in tests/skipped.toml (right)");
    // Past the capture of test output: this is for whoever reads the run.
    let _ = writeln!(std::io::stderr(), "skipped tests: {} (tests/skipped.toml)", listed.len());
}

#[test]
fn limits_stand_in_limits_rs() {
    let is_limit = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.find(|word| *word == "const").and_then(|_| words.next()).unwrap_or_default();
        let name = name.trim_end_matches(':');
        line.trim_start().starts_with("pub") && (name.ends_with("_MAX") || name.ends_with("_MIN"))
    };
    let found = lines_that(&rust_files(), |name, line| !name.ends_with("limits.rs") && is_limit(line));
    none("limits that others use, outside a limits.rs", &found);
}

#[test]
fn arrows_between_crates_are_those_of_the_design() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(name, others)| (*name, others.iter().copied().collect())).collect();
    let mut seen = BTreeSet::new();
    for (file, text) in files().into_iter().filter(|(name, _)| name.ends_with("/Cargo.toml")) {
        let manifest: toml::Table = text.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
        let name = manifest["package"]["name"].as_str().expect("a name").to_owned();
        let may = allowed.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no place in the design"));
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for other in dependencies.keys().filter(|other| allowed.contains_key(other.as_str())) {
                assert!(may.contains(other.as_str()), "{name} may not depend on {other}");
            }
        }
        seen.insert(name);
    }
    assert_eq!(seen, allowed.keys().map(|name| (*name).to_owned()).collect(), "crates and the design");
}

#[test]
fn the_protocol_can_not_name_a_socket() {
    let files = rust_files();
    let lib = &files["transport/proto/src/lib.rs"];
    assert!(lib.contains("#![no_std]"), "form-proto is no_std");
    let of_proto = files.into_iter().filter(|(name, _)| name.starts_with("transport/proto/src/")).collect();
    none("form-proto names std", &lines_that(&of_proto, |_, line| line.contains("std::") && !line.contains("core::")));
}

#[test]
fn documents_name_every_room() {
    let files = files();
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "delta/FORMAT.md", "transport/PROTOCOL.md"] {
        assert!(files.get(document).is_some_and(|text| text.len() > 500), "{document} is missing or says nothing");
    }
    for (name, _) in ARROWS {
        assert!(files["ARCHITECTURE.md"].contains(name), "ARCHITECTURE.md does not name {name}");
    }
    let makefile = &files["Makefile"];
    for command in ["make demo", "make test"] {
        assert!(files["README.md"].contains(command), "README.md does not say {command}");
        assert!(makefile.contains(&format!("\n{}:", &command[5..])), "the Makefile has no {command}");
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let here = root().to_string_lossy().into_owned();
    let found = lines_that(&files(), |_, line| line.contains(&here) || line.contains("/home/"));
    none("absolute paths of one machine", &found);
}

/// The node acts, form-proto decides: a branch on a commit's outcome anywhere else would by-pass what the model has explored.
#[test]
fn outcomes_are_branched_on_in_form_proto() {
    let names =
        ["Outcome::Committed", "Outcome::Aborted", "OutcomeRead::", "AttemptState::Committed", "AttemptState::Aborted"];
    let mut files = rust_files();
    files.retain(|name, _| name.starts_with("cli/node/src/") && !name.starts_with("cli/node/src/store/"));
    let lines = lines_that(&files, |_, line| names.iter().any(|outcome| line.contains(outcome)));
    let file = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let count = |name: &str| lines.iter().filter(|line| file(line) == name).count();
    let most = |name: &str| OUTCOME_LINES.iter().find(|(file, _, _)| *file == name).map_or(0, |(_, most, _)| *most);
    let too_many: Vec<_> = lines.iter().filter(|line| count(&file(line)) > most(&file(line))).cloned().collect();
    none("more lines that branch on an outcome than are known of", &too_many);
}

#[test]
fn each_promise_has_tests_named_after_it() {
    let lines = lines_that(&rust_files(), |_, line| line.trim_start().contains("fn promise_"));
    let named = |number: &str| {
        lines.iter().any(|line| {
            let name = line.rsplit("fn promise_").next().unwrap_or_default();
            let numbers = name.split('_').take_while(|word| *word == "and" || word.parse::<u32>().is_ok());
            numbers.into_iter().any(|word| word == number)
        })
    };
    let without: Vec<_> = PROMISES.map(|number| number.to_string()).filter(|number| !named(number)).collect();
    none("promises without a test", &without);
}
