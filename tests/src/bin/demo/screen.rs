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

/// `12.3 MiB`
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
