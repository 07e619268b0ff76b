//! A directory with a base `A` and a new image `B`, and `form delta` run in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use form_delta::generate::noise;
use serde_json::Value;
use tempfile::TempDir;

use crate::run::{Ran, command};

const MIB: usize = 1 << 20;

pub(crate) struct Scene {
    dir: TempDir,
}

impl Scene {
    pub(crate) fn new(base: &[u8], new: &[u8]) -> Self {
        let scene = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(scene.path("A"), base).unwrap();
        std::fs::write(scene.path("B"), new).unwrap();
        scene
    }

    /// Every kind of recipe.
    pub(crate) fn large() -> Self {
        let mut base = noise(1, 2 * MIB);
        base.resize(3 * MIB, 0);
        let mut new = base.clone();
        new[1_800_000] ^= 1;
        new[0..MIB].fill(0);
        new.extend(noise(2, 200_000));
        new.extend(noise(3, 100_000).iter().map(|byte| byte & 7));
        new.extend_from_slice(&base[..MIB]);
        Self::new(&base, &new)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = command(&[&["delta"], words].concat());
        command.current_dir(self.dir.path());
        command
    }

    pub(crate) fn form(&self, words: &[&str]) -> Ran {
        let output = self.command(words).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The result of a command that must succeed.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let ran = self.form(&[words, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{words:?}: {ran}");
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// The directory holds these files and no other.
    pub(crate) fn holds(&self, names: &[&str]) {
        let mut names = names.to_vec();
        names.sort_unstable();
        assert_eq!(files(self.dir.path()), names);
    }
}

pub(crate) fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
