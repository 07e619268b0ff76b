//! The pairs of images: what both ends hold, and what is to be there next.

use std::path::{Path, PathBuf};

use crate::{Result, settings::Settings};

/// One update.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The new image's name.
    pub name: &'static str,
    /// What happened in the guest.
    pub title: &'static str,
    /// Images that both ends hold. The first is the older version of the new one; then its disk, for a guest's memory.
    pub bases: Vec<PathBuf>,
    /// The image to be sent.
    pub new: PathBuf,
}

const PAIRS: [(&str, &str, &[&str]); 10] = [
    ("D1", "configuration edited", &["D0"]),
    ("D2", "packages installed", &["D0"]),
    ("D3", "rows of a table rewritten in place", &["D0"]),
    ("D4", "data moved", &["D0"]),
    ("D5", "20,000 small files written", &["D0"]),
    ("D6", "nothing changed", &["D0"]),
    ("D7", "data deleted and trimmed", &["D0"]),
    ("M1", "a guest idle for 30 s", &["M0", "D0"]),
    ("M2", "a guest after work", &["M0", "D0"]),
    ("M3", "a guest that freed its memory", &["M2", "D0"]),
];

/// The pairs that are wanted and whose images are in the corpus.
pub fn pairs(settings: &Settings) -> Result<Vec<Pair>> {
    let image = |name: &str| settings.corpus.join(format!("{name}.raw"));
    let pairs: Vec<Pair> = PAIRS
        .into_iter()
        .filter(|(name, ..)| settings.wants_pair(name))
        .map(|(name, title, bases)| Pair {
            name,
            title,
            bases: bases.iter().map(|base| image(base)).collect(),
            new: image(name),
        })
        .filter(|pair| pair.bases.iter().chain([&pair.new]).all(|path| path.exists()))
        .collect();
    if pairs.is_empty() {
        return Err(format!("no pair of images in {}; run: benches/corpus.sh {0}", settings.corpus.display()).into());
    }
    Ok(pairs)
}

/// An image's name.
pub fn name_of(image: &Path) -> String {
    image.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
