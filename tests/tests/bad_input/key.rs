//! A key that the tests themselves can sign with.

use std::io::Read;

use form_tests::{Context, Result};

/// 32 random bytes in hex.
pub(crate) fn random_key() -> Result<String> {
    let mut bytes = [0; 32];
    let mut random = std::fs::File::open("/dev/urandom").context(|| "open /dev/urandom".into())?;
    random.read_exact(&mut bytes).context(|| "read /dev/urandom".into())?;
    // Below the curve's order, whatever was drawn.
    bytes[0] &= 0x7f;
    Ok(hex::encode(bytes))
}
