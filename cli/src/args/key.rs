//! The key options, as typed. Which of them counts, and what it says, is `keys`' to find out.

use std::fmt;

use zeroize::Zeroizing;

/// Text that may be a secret: wiped when dropped, never shown.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// Exactly one source of the key that signs. Not a clap group: the environment counts too, when no option is given.
#[derive(clap::Args)]
#[command(next_help_heading = "The key that signs (give exactly one)")]
pub(crate) struct KeyArgs {
    /// Private key, 64 hex digits (with or without 0x) or base64; `-` reads it from a line of stdin; or set
    /// FORM_PRIVATE_KEY, which other users of the machine can't see
    #[arg(short, long, value_name = "KEY", value_parser = secret)]
    pub(crate) private_key: Option<Secret>,
    /// Keyfile; or set FORM_KEYFILE. Not read yet by this version
    #[arg(short, long, value_name = "FILE", value_parser = secret)]
    pub(crate) keyfile: Option<Secret>,
    /// BIP-39 mnemonic in English (key m/44'/60'/0'/0/0, no passphrase); `-` reads it from a line of stdin; or set
    /// FORM_MNEMONIC
    #[arg(short, long, value_name = "WORDS", value_parser = secret)]
    pub(crate) mnemonic: Option<Secret>,
}
