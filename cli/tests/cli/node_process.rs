//! `form node init` and `run`: what they make, and what they refuse.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use snapbox::{assert_data_eq, str};

use crate::run::{command, form};

/// A free address for the API and one for the transport. Nobody else is given them while the sockets live.
pub(crate) fn addresses() -> (TcpListener, UdpSocket) {
    (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap())
}

pub(crate) fn init(dir: &Path, data: &Path, api: SocketAddr, quic: SocketAddr) -> crate::run::Ran {
    let store = format!("sqlite:{}", dir.join("state.db").display());
    let (data, api, quic) = (data.to_str().unwrap(), api.to_string(), quic.to_string());
    form(&["node", "init", "--json", "--data", data, "--store", &store, "--api", &api, "--quic", &quic])
}

/// A node that answers on its API.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// What it says, read as it comes: it would wait for a reader that does not read.
    log: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    pub(crate) fn start(data: &Path) -> Self {
        let mut command = command(&["node", "run", "--data", data.to_str().unwrap()]);
        let mut child = command.env("FORM_LOG", "debug").spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (said, log) = channel();
        std::thread::spawn(move || lines.map_while(|line| said.send(line).ok()).for_each(drop));
        let mut running = Self { child, log, said: vec![] };
        while !running.said.last().is_some_and(|line| line.contains("running")) {
            running.said.push(running.log.recv().expect("it runs before it ends"));
        }
        running
    }

    /// Its exit code after a signal, and all it said.
    pub(crate) fn end(mut self, signal: Signal) -> (Option<i32>, Vec<String>) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
        let code = self.child.wait().unwrap().code();
        let mut said = std::mem::take(&mut self.said);
        said.extend(self.log.iter());
        (code, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As in a file: when, how bad, where, what.
fn is_log(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let when = words.next().is_some_and(|when| when.len() == 27 && when.ends_with('Z'));
    let level = words.next().is_some_and(|level| ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level));
    let place = words.next().is_some_and(|place| place.ends_with(':') && !place.starts_with("form_"));
    when && level && place && !line.contains('\x1b')
}

#[test]
fn a_node_is_made_once_for_its_owner_alone_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    let (api, quic) = addresses();
    let (api_addr, quic_addr) = (api.local_addr().unwrap(), quic.local_addr().unwrap());
    let made = init(dir.path(), &data, api_addr, quic_addr);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let files = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    assert_eq!(files.map(|file| mode(&file)).collect::<Vec<_>>(), [0o600, 0o600]);

    let again = init(dir.path(), &data, api_addr, quic_addr);
    assert_eq!(again.code, 6);
    assert!(again.stderr.contains("is not empty"), "{}", again.stderr);

    let text = data.to_str().unwrap();
    let taken = form(&["node", "run", "--data", text]);
    assert_data_eq!(
        taken.to_string().replace(&api_addr.to_string(), "ADDRESS"),
        str![[r#"
exit 6
error: the API address ADDRESS can't be used
cause: Address already in use (os error 98)
fix: stop what listens there, or make the node with another --api

"#]]
    );

    drop((api, quic));
    let running = Running::start(&data);
    let twice = form(&["node", "run", "--data", text]);
    assert_data_eq!(
        twice.to_string().replace(text, "DATA"),
        str![[r#"
exit 6
error: DATA is in use by another process
fix: a node runs once: stop the other `form node run`, or use the one that is there

"#]]
    );
    let url = format!("http://{api_addr}");
    let status = form(&["node", "status", "--json", "--node", &url]);
    assert_eq!(status.code, 0);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["node_id"], made["node_id"]);
    assert_eq!(status["installation_id"], made["installation_id"]);
    let none = form(&["manage", "instances", "--node", &url]);
    assert_eq!(none.to_string(), "exit 0\nno instances yet: make one with form manage create\n");
    let (code, said) = running.end(Signal::INT);
    assert_eq!(code, Some(0));
    let (log, notes): (Vec<String>, Vec<String>) = said.into_iter().partition(|line| is_log(line));
    assert!(log.iter().any(|line| line.contains(" INFO node::run: running ")), "{log:?}");
    assert_data_eq!(
        notes.join("\n"),
        str![[r#"
ending: commits under way are finished or undone first, for 20 s at most; a second signal ends at once
its VMs go on running: the next `form node run` adopts them; `form manage stop` is what ends one
"#]]
    );
}

#[test]
fn a_directory_that_is_no_node() {
    let dir = tempfile::tempdir().unwrap();
    let ran = form(&["node", "run", "--data", dir.path().to_str().unwrap()]);
    assert_data_eq!(
        ran.to_string().replace(dir.path().to_str().unwrap(), "DATA"),
        str![[r#"
exit 3
error: DATA/node.toml can't be read
cause: No such file or directory (os error 2)
fix: make the node first: form node init --data DIR --store sqlite:PATH

"#]]
    );
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("thesis.txt"), "all my work").unwrap();
    let ran = form(&["node", "init", "--data", data.to_str().unwrap(), "--store", "sqlite:/nowhere/state.db"]);
    assert_data_eq!(
        ran.to_string().replace(data.to_str().unwrap(), "DATA"),
        str![[r#"
exit 6
error: DATA is not empty
fix: give a new directory; a node that is there already is started with `form node run`

"#]]
    );
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
}

#[test]
fn a_store_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("node");
    for store in ["etcd://127.0.0.1:2379", "/var/lib/state.db", "sqlite:"] {
        let ran = form(&["node", "init", "--data", data.to_str().unwrap(), "--store", store]);
        assert_ne!(ran.code, 0, "{store}");
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains("sqlite:PATH"), "{}", ran.stderr);
        assert!(!data.exists(), "{store}");
    }
}

#[test]
fn a_node_is_removed_once_and_only_without_instances() {
    let dir = tempfile::tempdir().unwrap();
    let (api, quic) = addresses();
    let made = init(dir.path(), &dir.path().join("n1"), api.local_addr().unwrap(), quic.local_addr().unwrap());
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let id = made["node_id"].as_str().unwrap();
    let store = format!("sqlite:{}", dir.path().join("state.db").display());
    let remove = || form(&["node", "remove", id, "--store", &store]);
    assert_data_eq!(
        remove().to_string().replace(id, "ID"),
        str![[r#"
exit 0
removed ID

"#]]
    );
    assert_data_eq!(
        remove().to_string().replace(id, "ID"),
        str![[r#"
exit 3
error: node ID is not enrolled
fix: `form node status` shows a node's id

"#]]
    );
    // A store that is not there is not made.
    let nowhere = format!("sqlite:{}", dir.path().join("elsewhere/state.db").display());
    assert_ne!(form(&["node", "remove", id, "--store", &nowhere]).code, 0);
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_log_filter_that_is_none() {
    let mut command = command(&["node", "run", "--data", "/nowhere"]);
    let output = command.env("FORM_LOG", "form=loud").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_data_eq!(
        String::from_utf8(output.stderr).unwrap(),
        str![[r#"
error: FORM_LOG is "form=loud", which is no log filter
cause: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
fix: set it to error, warn, info, debug or trace, or to a list of module=level

"#]]
    );
}
