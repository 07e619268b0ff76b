//! What the demo says.

use form_tests::{Error, Result};

/// A chapter.
pub(crate) fn title(text: &str) {
    println!("\n━━ {text}");
}

/// A remark.
pub(crate) fn say(text: &str) {
    println!("   {text}");
}

/// A command that is about to be run, as one would type it.
pub(crate) fn command(words: &[&str]) {
    let quoted: Vec<String> =
        words.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() }).collect();
    println!("   $ form {}", quoted.join(" "));
}

/// Something that must hold, and whether it did.
pub(crate) fn check(what: &str, holds: Result<()>) -> Result<()> {
    println!("   {} {what}", if holds.is_ok() { "✓" } else { "✗" });
    holds
}

/// The same for a comparison.
pub(crate) fn check_that(what: &str, holds: bool) -> Result<()> {
    check(what, if holds { Ok(()) } else { Err(Error::new(format!("this did not hold: {what}"))) })
}

/// `380.5 KiB`, `62.0 MiB`
pub(crate) fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    if kib < 1024.0 { format!("{kib:.1} KiB") } else { format!("{:.1} MiB", kib / 1024.0) }
}
