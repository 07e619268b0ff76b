//! The list of mutants fits the code: each changes one place that is there once, and names a test that is there.

use std::collections::BTreeSet;
use std::path::Path;

use form_tests::Mutants;

/// Fewer would not be worth the name.
const MUTANTS_AT_LEAST: usize = 20;

#[test]
fn each_mutant_changes_one_place_and_names_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate is in the repository");
    let mutants = Mutants::load(root).expect("the list").mutant;
    let names: BTreeSet<_> = mutants.iter().map(|mutant| &mutant.name).collect();
    assert!(names.len() >= MUTANTS_AT_LEAST && names.len() == mutants.len(), "{} names", names.len());
    for mutant in &mutants {
        let text = std::fs::read_to_string(root.join(&mutant.file)).expect("the file of a mutant");
        let changed = mutant.of(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(changed, text, "{} changes nothing", mutant.name);

        let dir = ["delta", "cli/node", "transport/proto", "transport", "vmm-hooks"]
            .into_iter()
            .find(|dir| mutant.package == format!("form-{}", dir.rsplit('/').next().unwrap_or(dir)))
            .unwrap_or_else(|| panic!("{}: which crate is {}?", mutant.name, mutant.package));
        let tests = root.join(dir).join("tests");
        let file = match mutant.test.rsplit_once("::") {
            Some((module, _)) => tests.join(&mutant.target).join(module.replace("::", "/")).with_extension("rs"),
            None => tests.join(&mutant.target).with_extension("rs"),
        };
        let name = mutant.test.rsplit("::").next().unwrap_or_default();
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {}: {e}", mutant.name, file.display()));
        assert!(text.contains(&format!("fn {name}(")), "{}: {} has no {name}", mutant.name, file.display());
    }
}
