//! The commands that drive a machine of files.

use form_vmm_hooks::Commands;

use super::limits::{COMMAND_TIMEOUT_S, COMMAND_TIMEOUT_S_MAX, COMMAND_WORDS_MAX, WORD_BYTES_MAX};
use super::parse::bad;
use super::text::CommandsText;
use crate::error::ApiError;

pub(super) fn commands(text: CommandsText) -> Commands {
    let CommandsText { pause, resume, start, stop, timeout_s } = text;
    let timeout_s = timeout_s.unwrap_or(COMMAND_TIMEOUT_S);
    Commands { pause, resume, start, stop, timeout_s }
}

pub(super) fn check(commands: &Commands) -> Result<(), ApiError> {
    let Commands { pause, resume, start, stop, timeout_s } = commands;
    if pause.is_empty() != resume.is_empty() {
        return Err(bad("commands.pause and commands.resume go together").remedy("give both or neither"));
    }
    if !(1..=COMMAND_TIMEOUT_S_MAX).contains(timeout_s) {
        return Err(bad(format!("commands.timeout_s = {timeout_s} is not 1 to {COMMAND_TIMEOUT_S_MAX}")));
    }
    [("pause", pause), ("resume", resume), ("start", start), ("stop", stop)]
        .into_iter()
        .try_for_each(|(what, words)| command(&format!("commands.{what}"), words))
}

/// Refuses what is not the name of a program and its arguments.
pub(super) fn command(what: &str, words: &[String]) -> Result<(), ApiError> {
    let Some(program) = words.first() else { return Ok(()) };
    let is_name = !program.is_empty()
        && !program.starts_with('.')
        && program.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !is_name {
        return Err(bad(format!("{what} does not begin with the name of a program"))
            .cause("a node runs only programs of its own directory `commands`")
            .remedy("put the program there on each node, and give its name without a path"));
    }
    if words.len() > COMMAND_WORDS_MAX || words.iter().any(|w| w.len() > WORD_BYTES_MAX || w.contains('\0')) {
        return Err(bad(format!(
            "{what} has more than {COMMAND_WORDS_MAX} words, or one that is too long or has a NUL in it"
        ))
        .remedy("put what is long into a script of that directory, and name that"));
    }
    Ok(())
}
