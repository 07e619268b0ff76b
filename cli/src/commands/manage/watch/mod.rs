//! `form manage status --watch`: asks again every second, until Ctrl-C. A node that goes away is waited for.

mod picture;
mod waits;

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};

use form_node::{ApiError, ErrorCode};
use tokio::time::{Duration, sleep};

use self::picture::Picture;
use crate::client::Client;
use crate::exit::Stop;
use crate::output::Output;
use crate::terminal::TerminalMode;
use crate::units::utc;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Something that is so. `key` is the same as long as only figures of time differ in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    key: String,
    text: String,
}

impl Line {
    fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { key: text.clone(), text }
    }

    fn keyed(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }
}

/// Watches one cluster, that of the instance `only`, or all.
pub(super) async fn watch(client: &Client, only: Option<&str>, output: Output) -> Result<(), Stop> {
    let paints = !output.is_json() && std::io::stdout().is_terminal();
    let _mode = paints.then(TerminalMode::without_control_echo);
    let watching = async {
        let cluster = match only {
            Some(name) => Some(client.instance(name).await?.cluster_id),
            None => None,
        };
        let mut picture = Picture::default();
        let mut shown = BTreeSet::new();
        loop {
            match picture.look(client, cluster.as_deref()).await {
                Ok(()) => {}
                // One that never answered is a wrong address, or a node to be started first.
                Err(error) if error.code == ErrorCode::Unavailable && !shown.is_empty() => picture.lose(error),
                Err(error) => return Err::<(), ApiError>(error),
            }
            show(&picture, &mut shown, paints, output);
            sleep(EVERY).await;
        }
    };
    tokio::select! {
        ended = watching => Ok(ended?),
        _ = tokio::signal::ctrl_c() => Err(Stop::Interrupted),
    }
}

/// On a terminal all of it, over what stood there; elsewhere what is new.
fn show(picture: &Picture, shown: &mut BTreeSet<String>, paints: bool, output: Output) {
    let lines = picture.lines();
    let keys: BTreeSet<String> = lines.iter().map(|line| line.key.clone()).collect();
    if paints {
        let text = picture.screen();
        // Home, then all that is below is cleared. Nothing is left to tell of a terminal that is gone.
        let _ = writeln!(std::io::stdout().lock(), "\x1b[H\x1b[J{text}").and_then(|()| std::io::stdout().flush());
    } else if output.is_json() {
        if keys != *shown {
            output.json_line(picture);
        }
    } else {
        for line in lines.iter().filter(|line| !shown.contains(&line.key)) {
            output.result(&(), || format!("{}  {}", utc(picture.time_ms()), line.text));
        }
    }
    *shown = keys;
}
