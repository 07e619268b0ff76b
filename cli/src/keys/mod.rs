//! From what was typed to the key that signs.

mod mnemonic;
mod private_key;
mod source;

use std::io::BufRead;

use form_node::auth::SigningKey;
use form_node::{ApiError, ErrorCode};
use zeroize::Zeroizing;

use crate::args::{KeyArgs, Secret};

pub(crate) use mnemonic::new_account;

/// The one key that was given.
///
/// # Errors
/// `bad_key` when there is none, more than one, or a malformed one; `unsupported` for a keyfile.
pub(crate) fn signing_key(args: &KeyArgs) -> Result<SigningKey, ApiError> {
    let given = source::choose(args, |name| std::env::var(name).ok().map(Secret::new))?;
    let text = match given.text.expose() {
        "-" => line_of_stdin(given.from)?,
        text => Zeroizing::new(text.to_owned()),
    };
    match given.kind {
        source::Kind::PrivateKey => private_key::parse(text.trim()),
        source::Kind::Mnemonic => mnemonic::parse(&text),
    }
}

/// One line, so that what follows is left for the command (the console's input, say).
fn line_of_stdin(from: &str) -> Result<Zeroizing<String>, ApiError> {
    let mut line = Zeroizing::new(String::with_capacity(1024));
    let count = std::io::stdin().lock().read_line(&mut line).map_err(|error| {
        ApiError::new(ErrorCode::BadKey, format!("{from} was to come from stdin, which can't be read")).cause(error)
    })?;
    if count == 0 {
        return Err(ApiError::new(ErrorCode::BadKey, format!("{from} was to come from stdin, which is empty")));
    }
    Ok(line)
}
