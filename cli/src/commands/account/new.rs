use serde_json::json;

use crate::exit::Stop;
use crate::keys::new_account;
use crate::output::Output;

/// Make a key, and print its mnemonic and address
///
/// Nothing is stored and no node is asked: the twelve words are the key, and this is the only time they are shown.
#[derive(clap::Args)]
pub(crate) struct NewArgs {}

pub(super) fn run(_args: NewArgs, output: Output) -> Result<(), Stop> {
    let account = new_account()?;
    let address = account.key.address();
    output.result(&json!({ "mnemonic": *account.mnemonic, "address": address }), || {
        format!(
            "mnemonic  {}\naddress   {address}\nWrite the words down and keep them to yourself: they are not stored anywhere.",
            *account.mnemonic
        )
    });
    Ok(())
}
