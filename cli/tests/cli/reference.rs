//! docs/cli.md is what `--help` says, command by command. `SNAPSHOTS=overwrite cargo test -p form` writes it anew.

use crate::run::form;
use snapbox::assert_data_eq;

#[test]
fn the_reference_is_the_help_of_every_command() {
    let mut reference = String::from(
        "# Command line\n\nWhat `--help` says of each command. Made by `SNAPSHOTS=overwrite cargo test -p form --test cli reference`.\n",
    );
    let count = describe(&[], &mut reference);
    assert_eq!(count, 26, "commands and groups of commands; a new one belongs into the README too");
    assert_data_eq!(reference, snapbox::file!["../../../docs/cli.md"].raw());
}

/// clap leaves blanks on empty lines.
fn tidy(help: &str) -> String {
    help.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Appends the help of a command and of those below it; gives how many there are.
fn describe(words: &[&str], reference: &mut String) -> usize {
    let help = form(&[words, &["--help"]].concat());
    assert_eq!(help.code, 0);
    assert_eq!(help.stderr, "");
    let name = [&["form"], words].concat().join(" ");
    reference.push_str(&format!("\n## {name}\n\n```text\n{}```\n", tidy(&help.stdout)));
    let commands = help.stdout.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut count = 1;
    for line in commands.take_while(|line| !line.is_empty()) {
        let below = line.split_whitespace().next().filter(|_| !line.starts_with("   ")).filter(|name| *name != "help");
        if let Some(below) = below {
            count += describe(&[words, &[below]].concat(), reference);
        }
    }
    count
}
