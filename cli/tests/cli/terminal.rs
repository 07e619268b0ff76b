//! A commit on a terminal: `script` gives it one, and what it paints is rendered.

use std::process::Stdio;

use crate::commit::{good, node};
use crate::fake_node::Answer;
use crate::run::command;

const JUNK: &str = "test test test test test test test test test test test junk";

/// What a terminal is that does not say how wide it is.
const COLUMNS: usize = 80;

/// The lines of a terminal after `text`, for the little that is used of one; panics at anything else.
fn rendered(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut row = 0_usize;
    let mut column = 0;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x1b' => {
                assert_eq!(rest.next(), Some('['));
                let mut sequence = String::new();
                while !sequence.ends_with(|end: char| end.is_ascii_alphabetic()) {
                    sequence.extend(rest.next());
                }
                let count = || sequence[..sequence.len() - 1].parse::<usize>().unwrap_or(1);
                match sequence.chars().last() {
                    Some('A') => row = row.checked_sub(count()).unwrap(),
                    Some('B') => row += count(),
                    Some('K') => lines[row].clear(),
                    // Colours and the cursor's visibility.
                    Some('m' | 'l' | 'h') => {}
                    _ => panic!("{sequence}"),
                }
            }
            letter => {
                if column == COLUMNS {
                    (row, column) = (row + 1, 0);
                    lines.resize(lines.len().max(row + 1), String::new());
                }
                while lines[row].chars().count() <= column {
                    lines[row].push(' ');
                }
                lines[row] =
                    lines[row].chars().enumerate().map(|(at, old)| if at == column { letter } else { old }).collect();
                column += 1;
            }
        }
        while lines.len() <= row {
            lines.push(String::new());
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn rows_are_painted_over_and_taken_away() {
    let node = node(|_| Some(Answer::Events(good())));
    let form = command(&[]).get_program().to_owned();
    let line = format!("{} manage commit -n demo-1 --node {}", form.display(), node.url);
    let mut script = std::process::Command::new("script");
    let output = script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("FORM_MNEMONIC", JUNK)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script is there: Debian has it in bsdutils");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    // While it ran: a row for each instance.
    for row in [" demo-1  ", "  demo-2  ready "] {
        assert!(said.contains(row), "{row}: {said:?}");
    }
    // When it is over: what was said above the rows, the summary, and no row.
    let screen = rendered(&said);
    assert_eq!(screen[0], "committing demo-1 to demo-2");
    assert!(screen[1].starts_with("committed 5eed"), "{screen:#?}");
    assert!(screen[2].starts_with("committed and settled: 5eed"), "{screen:#?}");
    let rows = screen.iter().filter(|line| line.chars().skip(2).collect::<String>().starts_with("demo-"));
    assert_eq!(rows.count(), 0, "{screen:#?}");
}
