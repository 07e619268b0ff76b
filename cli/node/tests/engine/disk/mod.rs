//! A disk that forgets: what a node writes is seen at once, as through a page cache, but only what was fsynced outlives a
//! crash; and any operation of it can be made to fail, to find no space, or to be the last before the power goes.
//!
//! It is mounted (FUSE), so that the node's own code, SQLite, io_uring and mappings meet it without knowing. A disk of a
//! test is served by this test binary, run once more: see [`serve`].

mod chance;
mod content;
mod faults;
mod model;
mod server;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use self::chance::Chance;
pub(crate) use self::faults::Fault;
use self::faults::Faults;
use self::model::Model;
use self::server::{Served, State};

/// Names the place of a disk that is to be served, and the socket of whoever asks for that.
const SERVE: &str = "FORM_TEST_DISK";
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that a disk holds.
const DISK_BYTES: u64 = 1 << 30;

/// A mounted disk. Dropped, it is gone with all that is on it.
pub(crate) struct Disk {
    at: PathBuf,
    control: Mutex<UnixStream>,
    answers: Mutex<Receiver<String>>,
    hit: Arc<Mutex<Option<String>>>,
    server: Child,
}

impl Disk {
    /// An empty one at a new directory.
    pub(crate) fn mount(at: &Path) -> Self {
        std::fs::create_dir(at).expect("make");
        let socket = at.with_extension("disk");
        let listener = UnixListener::bind(&socket).expect("listen");
        let server = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "disk::serve", "--quiet", "--nocapture"])
            .env(SERVE, at)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // What interrupts the test must not reach it: it is to see that nobody asks any more, and to unmount.
            .process_group(0)
            .spawn()
            .expect("run this test binary");
        let (control, _) = listener.accept().expect("the server");
        std::fs::remove_file(&socket).expect("remove");
        let (answered, answers) = channel();
        let hit = Arc::new(Mutex::new(None));
        let told = Arc::clone(&hit);
        let lines = BufReader::new(control.try_clone().expect("clone")).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.strip_prefix("hit ") {
                    Some(operation) => *told.lock().expect("lock") = Some(operation.to_owned()),
                    None => drop(answered.send(line)),
                }
            }
        });
        let disk = Self { at: at.to_owned(), control: Mutex::new(control), answers: Mutex::new(answers), hit, server };
        assert_eq!(disk.answer(), "mounted", "a disk needs root and /dev/fuse (modprobe fuse)");
        disk
    }

    /// The operation of that number from now on, from 1, goes wrong; without one they are counted only.
    pub(crate) fn arm(&self, armed: Option<(u64, Fault)>) {
        let (at, fault) = armed.map_or((0, "none"), |(at, fault)| (at, fault.word()));
        *self.hit.lock().expect("lock") = None;
        self.ask(&format!("arm {at} {fault}"));
    }

    /// Operations since it was armed.
    pub(crate) fn count(&self) -> u64 {
        self.ask("count").parse().expect("a number")
    }

    /// The operation that went wrong, once there is one.
    pub(crate) fn was_hit(&self) -> Option<String> {
        self.hit.lock().expect("lock").clone()
    }

    /// It works from now on, and whatever waited for it has failed.
    pub(crate) fn mend(&self) {
        self.ask("mend");
    }

    /// The power comes back: what was not durable is lost, kept or torn, as the seed says. Nobody may have a file open.
    pub(crate) fn crash(&self, seed: u64) {
        self.ask(&format!("crash {seed}"));
    }

    fn ask(&self, question: &str) -> String {
        writeln!(self.control.lock().expect("lock"), "{question}").expect("the disk is served");
        self.answer()
    }

    fn answer(&self) -> String {
        self.answers.lock().expect("lock").recv_timeout(PATIENCE).expect("the disk answers")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server ends when nobody asks any more.
        let _ = self.control.lock().expect("lock").shutdown(std::net::Shutdown::Both);
        let _ = self.server.wait();
        // If it could not.
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// Not a test of its own: in a process that [`Disk::mount`] has started it serves that disk until nobody asks any more.
#[test]
fn serve() {
    let Some(at) = std::env::var_os(SERVE).map(PathBuf::from) else { return };
    let mut control = UnixStream::connect(at.with_extension("disk")).expect("connect");
    let _gone = Gone(&at);
    let model = Model::new(DISK_BYTES / content::PAGE);
    let served = Served(Arc::new(Mutex::new(State { model, faults: Faults::default() })));
    let mount = || {
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("form-test".into())];
        fuser::spawn_mount(served.clone(), &at, &config)
    };
    let mut session = match mount() {
        Ok(session) => session,
        Err(error) => return drop(writeln!(control, "{error}")),
    };
    writeln!(control, "mounted").expect("tell");
    let asker = rustix::process::getppid().expect("the test");
    std::thread::spawn({
        let served = served.clone();
        move || loop {
            std::thread::sleep(Duration::from_millis(500));
            // Killed while it waits for us, it ends only when it is answered, and only then is the socket closed.
            let state = std::fs::read_to_string(format!("/proc/{}/stat", asker.as_raw_nonzero())).unwrap_or_default();
            if state.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with('Z')) {
                served.state().faults.mend();
            }
        }
    });
    for line in BufReader::new(control.try_clone().expect("clone")).lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["arm", at, fault] => {
                let mut told = control.try_clone().expect("clone");
                // Whoever asked may be gone.
                let on_hit = Box::new(move |operation: &str| drop(writeln!(told, "hit {operation}")));
                let armed = Fault::parse(fault).map(|fault| (at.parse().expect("a number"), fault));
                served.state().faults.arm(armed, on_hit);
                String::new()
            }
            ["count"] => served.state().faults.count.to_string(),
            ["mend"] => {
                served.state().faults.mend();
                String::new()
            }
            ["crash", seed] => {
                served.state().faults.mend();
                let connection = rustix::fs::minor(rustix::fs::stat(&at).expect("stat").st_dev);
                unmount(&at);
                abort(connection, &at.with_extension("connections"));
                session.join().expect("it is unmounted");
                served.state().model.crash(&mut Chance::new(seed.parse().expect("a number")));
                session = mount().expect("mount");
                String::new()
            }
            _ => panic!("{line}?"),
        };
        if writeln!(control, "{answer}").is_err() {
            break;
        }
    }
    served.state().faults.mend();
}

/// Unmounts, whatever happens. Whoever is still there is about to end.
struct Gone<'a>(&'a Path);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}

/// Ends what is left of a connection once nothing is mounted here: somebody else's mount namespace, made meanwhile, has a mount of it too.
fn abort(connection: u32, connections: &Path) {
    std::fs::create_dir(connections).expect("make");
    rustix::mount::mount("fusectl", connections, "fusectl", rustix::mount::MountFlags::empty(), None)
        .expect("mount fusectl");
    // As a rule it is gone.
    let _ = std::fs::write(connections.join(connection.to_string()).join("abort"), "1");
    rustix::mount::unmount(connections, UnmountFlags::empty()).expect("unmount");
    std::fs::remove_dir(connections).expect("remove");
}

fn unmount(at: &Path) {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = rustix::mount::unmount(at, UnmountFlags::empty()) {
        assert!(Instant::now() < until, "somebody still has a file of the disk open: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
