//! A commit on a terminal: `script` gives it one, and what it paints is rendered.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::commit::{good, node};
use crate::fake_node::{Answer, FakeNode};
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
            // Ctrl-C, as it is echoed when it is not to be seen.
            '\x03' => {}
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

/// Runs a commit in a shell on a terminal, and then `after`. What `while_it_runs` says is typed once rows are shown.
fn on_a_terminal(node: &FakeNode, after: &str, while_it_runs: &[u8]) -> (Option<i32>, String) {
    let form = command(&[]).get_program().to_owned();
    // Ctrl-C goes to the whole foreground group: the shell must live on to run `after`, and dash would not.
    let line = format!("trap : INT; {} manage commit -n demo-1 --node {}{after}", form.display(), node.url);
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("FORM_MNEMONIC", JUNK)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is there: Debian has it in bsdutils");
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = vec![];
    let mut typed = while_it_runs.is_empty();
    let mut some = [0; 4096];
    loop {
        let count = screen.read(&mut some).unwrap();
        said.extend(&some[..count]);
        if !typed && String::from_utf8_lossy(&said).contains("  demo-2") {
            keys.write_all(while_it_runs).unwrap();
            typed = true;
        }
        if count == 0 {
            break;
        }
    }
    (child.wait().unwrap().code(), String::from_utf8(said).unwrap())
}

/// Rows that were left on the screen: two places for the spinner, then a name.
fn rows(screen: &[String]) -> usize {
    screen.iter().filter(|line| line.chars().skip(2).collect::<String>().starts_with("demo-")).count()
}

#[test]
fn rows_are_painted_over_and_taken_away() {
    let node = node(|_| Some(Answer::Events(good())));
    let (code, said) = on_a_terminal(&node, "", b"");
    assert_eq!(code, Some(0), "{said}");
    // While it ran: a row for each instance.
    for row in [" demo-1  ", "  demo-2  ready "] {
        assert!(said.contains(row), "{row}: {said:?}");
    }
    // When it is over: what was said above the rows, the summary, and no row.
    let screen = rendered(&said);
    assert_eq!(screen[0], "committing demo-1 to demo-2");
    assert!(screen[1].starts_with("committed 5eed"), "{screen:#?}");
    assert!(screen[2].starts_with("committed and settled: 5eed"), "{screen:#?}");
    assert_eq!(rows(&screen), 0, "{screen:#?}");
}

#[test]
fn ctrl_c_leaves_the_terminal_as_it_was() {
    let node = node(|_| Some(Answer::Open(good()[..2].to_vec())));
    let (code, said) = on_a_terminal(&node, "; echo exit $?; stty -a", b"\x03");
    assert_eq!(code, Some(0), "{said}");
    let screen = rendered(&said);
    assert_eq!(screen[0], "committing demo-1 to demo-2");
    assert!(screen[1].starts_with("the commit goes on at the node; look with: "), "{screen:#?}");
    assert_eq!(rows(&screen), 0, "{screen:#?}");
    assert!(screen.contains(&"exit 130".to_owned()), "{screen:#?}");
    assert!(screen.iter().any(|line| line.split(' ').any(|mode| mode == "echoctl")), "{screen:#?}");
}
