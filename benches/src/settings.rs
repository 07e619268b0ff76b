//! What a run is told by its environment.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::Result;

/// The environment, read once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `FORM_BENCH_ROUNDS`: how often each update is run (default 3). Slow tools run once.
    pub rounds: usize,
    /// `FORM_BENCH_ONLY`: pairs, or series of growth, by name, with commas between them (default all).
    pub only: Option<Vec<String>>,
    /// `FORM_BENCH_PEERS`: tools by name, with commas between them (default all).
    pub peers: Option<Vec<String>>,
    /// `FORM_BENCH_CORPUS`: where corpus.sh left its images (default target/corpus).
    pub corpus: PathBuf,
    /// `FORM_BENCH_DIR`: results, and room for work (default target/bench).
    pub dir: PathBuf,
    /// `FORM_BENCH_FORM`: the `form` program (default beside this one).
    pub form: PathBuf,
}

impl Settings {
    /// Reads them.
    pub fn from_env() -> Result<Settings> {
        let list = |name| env::var(name).ok().map(|list| list.split(',').map(|item| item.trim().to_owned()).collect());
        let path = |name, default: &Path| {
            std::path::absolute(env::var_os(name).map_or_else(|| default.to_owned(), PathBuf::from))
        };
        Ok(Settings {
            rounds: env::var("FORM_BENCH_ROUNDS").map_or(Ok(3), |rounds| rounds.parse())?,
            only: list("FORM_BENCH_ONLY"),
            peers: list("FORM_BENCH_PEERS"),
            corpus: path("FORM_BENCH_CORPUS", Path::new("target/corpus"))?,
            dir: path("FORM_BENCH_DIR", Path::new("target/bench"))?,
            form: path("FORM_BENCH_FORM", &env::current_exe()?.with_file_name("form"))?,
        })
    }

    /// Whether a pair is to be run.
    pub fn wants_pair(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|wanted| wanted == name))
    }

    /// Whether a tool is to be run.
    pub fn wants_tool(&self, name: &str) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.iter().any(|wanted| wanted == name))
    }
}
