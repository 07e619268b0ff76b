//! One-line changes to the code, and the test that must catch each: `tests/mutants.toml`.

use std::path::Path;

use serde::Deserialize;

/// The list as it is written.
#[derive(Debug, Deserialize)]
pub struct Mutants {
    /// In the order of the table.
    pub mutant: Vec<Mutant>,
}

/// One change.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// What it gets wrong.
    pub name: String,
    /// From the repository's root.
    pub file: String,
    /// What stands there, once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// The crate of the test.
    pub package: String,
    /// Its integration test, a file or directory of `tests/`.
    pub target: String,
    /// The test, by its full name.
    pub test: String,
}

impl Mutants {
    /// The repository's list.
    ///
    /// # Errors
    /// It is not there, or not such a list.
    pub fn load(root: &Path) -> Result<Self, String> {
        let path = root.join("tests/mutants.toml");
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl Mutant {
    /// The file's text with the change.
    ///
    /// # Errors
    /// What it looks for does not stand there, or more than once.
    pub fn of(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            count => Err(format!("mutant \"{}\": {} has {count} times: {}", self.name, self.file, self.find)),
        }
    }

    /// The test as cargo is asked for it.
    #[must_use]
    pub fn test_args(&self) -> [&str; 8] {
        ["test", "--locked", "-p", &self.package, "--test", &self.target, &self.test, "--"]
    }
}
