//! One node in a runtime of its own, so that it can be lost as a process is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use form_node::store::{SqliteKv, Store};
use form_node::{ApiError, InitOptions, init, run_on};
use form_proto::{Record, Step};
use form_vmm_hooks::fake::FakeVmm;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::client::get;
use crate::disk::Disk;
use crate::gate::Gate;
use crate::hooks::Hooks;
use crate::monitor::Monitor;
use crate::volume::{Kind, Volume};

/// Where the data of nodes is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Storage {
    /// In a directory like any other.
    Directory,
    /// On a disk that forgets.
    Disk,
    /// On a file system of its own, of that many bytes.
    Volume(Kind, u64),
}

/// What a node's data is on.
enum Under {
    Directory,
    Disk(Disk),
    Volume(Volume),
}

/// A node, running or not.
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) id: String,
    pub(crate) data: PathBuf,
    pub(crate) api: SocketAddr,
    pub(crate) quic: SocketAddr,
    /// Its way to the state store is shut while this is set.
    pub(crate) cut_off: Arc<AtomicBool>,
    state: PathBuf,
    fake: FakeVmm,
    hooks: Hooks,
    /// As SIGTERM would.
    end: Arc<Notify>,
    process: Option<(Runtime, JoinHandle<Result<(), ApiError>>)>,
    under: Under,
}

/// An address that no other node of this machine's tests has: 127/8 is all loopback.
pub(crate) fn own_ip() -> [u8; 4] {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    assert!(number < 1 << 9, "more nodes than addresses");
    let [a, b, c, d] = (0x7f00_0000 | 1 << 23 | (process % (1 << 14)) << 9 | number).to_be_bytes();
    [a, b, c, d]
}

impl Node {
    pub(crate) async fn init(
        number: usize,
        dir: &Path,
        state: &Path,
        fake: &FakeVmm,
        hooks: &Hooks,
        storage: Storage,
    ) -> Self {
        let ip = own_ip();
        let (api, quic) = (SocketAddr::from((ip, 3002)), SocketAddr::from((ip, 3003)));
        let data = dir.join(format!("node-{number}"));
        let under = match storage {
            Storage::Directory => Under::Directory,
            Storage::Disk => Under::Disk(Disk::mount(&data)),
            Storage::Volume(kind, bytes) => Under::Volume(Volume::mount(&data, kind, bytes)),
        };
        let store = format!("sqlite:{}", state.display());
        let made = init(&InitOptions { data_dir: data.clone(), store, api, quic, qemu: None }).await.expect("init");
        // What its machines are told is written down.
        std::fs::create_dir(data.join("traces")).expect("a place for traces");
        Self {
            number,
            id: made.node_id,
            data,
            api,
            quic,
            cut_off: Arc::default(),
            state: state.to_owned(),
            fake: fake.clone(),
            hooks: hooks.clone(),
            end: Arc::default(),
            process: None,
            under,
        }
    }

    /// Runs it until it is killed; it answers when this returns.
    pub(crate) async fn start(&mut self) {
        if let Err(error) = self.try_start().await {
            panic!("node {} does not start: {error} ({:?})", self.number, error.cause);
        }
    }

    /// As [`Node::start`]; the error that ended it.
    pub(crate) async fn try_start(&mut self) -> Result<(), ApiError> {
        assert!(self.process.is_none(), "it runs");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let monitor = Monitor { node: self.number, fake: self.fake.clone(), hooks: self.hooks.clone() };
        let (data, state, node) = (self.data.clone(), self.state.clone(), self.number);
        let (hooks, shut) = (self.hooks.clone(), Arc::clone(&self.cut_off));
        self.end = Arc::default();
        let end_it = Arc::clone(&self.end);
        let running = runtime.spawn(async move {
            let kv = Arc::new(SqliteKv::open(&state).await?);
            let store = Store::over(Arc::new(Gate { node, kv, hooks, shut })).await?;
            run_on(&data, store, Arc::new(monitor), async move { end_it.notified().await }).await
        });
        self.process = Some((runtime, running));
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < until, "node {} does not answer", self.number);
            if get(self.api, "/api/v1/node").await.is_ok() {
                return Ok(());
            }
            if self.process.as_ref().is_some_and(|(_, running)| running.is_finished()) {
                let (runtime, running) = self.process.take().expect("it ran");
                let ended = running.await.expect("no panic");
                end(runtime, &Under::Directory);
                return Err(ended.expect_err("it does not end by itself"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that it was doing ends where it is, and nobody is told. Its VMs go on.
    pub(crate) fn kill(&mut self) {
        let (runtime, _) = self.process.take().expect("it runs");
        end(runtime, &self.under);
    }

    /// Its disk, that can forget.
    pub(crate) fn disk(&self) -> &Disk {
        match &self.under {
            Under::Disk(disk) => disk,
            _ => panic!("it has no disk of its own"),
        }
    }

    /// Its host loses its power, and gets it back; `seed` draws what becomes of what was not durable, where there is a choice.
    pub(crate) fn crash(&self, seed: u64) {
        assert!(!self.runs(), "kill it first");
        match &self.under {
            Under::Directory => panic!("nothing of it is lost"),
            Under::Disk(disk) => disk.crash(seed),
            Under::Volume(volume) => volume.crash(),
        }
    }

    /// It is to end, and finishes or undoes first what it has in flight.
    pub(crate) fn tell_to_end(&self) {
        self.end.notify_one();
    }

    /// Waits until it has.
    pub(crate) async fn ended(&mut self) -> Result<(), ApiError> {
        let (runtime, running) = self.process.take().expect("it ran");
        let ended = tokio::time::timeout(Duration::from_secs(40), running).await;
        end(runtime);
        ended.expect("it ends").expect("no panic")
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.start().await;
    }

    /// How far an instance has durably come in an attempt, as a restart would find it.
    pub(crate) fn step(&self, instance: &str) -> Option<Step> {
        let db =
            Connection::open_with_flags(self.data.join("node.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("open");
        let query = "SELECT record FROM participants WHERE instance = ?1";
        let record: Option<Vec<u8>> = db.query_row(query, [instance], |row| row.get(0)).optional().expect("read");
        Record::decode(&record?).expect("a record").work.map(|(step, _)| step)
    }

    /// Names in a directory of its data; none if it is not there.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.data.join(dir)) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|e| e.expect("entry").file_name().into_string().expect("a name of ours")).collect();
        names.sort();
        names
    }
}

/// Waits for what runs on blocking threads: a process that is lost has none, and its files do not change any more.
fn end(runtime: Runtime, under: &Under) {
    let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(30)));
    if let Under::Disk(disk) = under {
        // Whoever waits for a disk without power may go once the others have been stopped.
        std::thread::sleep(Duration::from_millis(20));
        disk.mend();
    }
    ended.join().expect("no panic");
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((runtime, _)) = self.process.take() {
            end(runtime, &self.under);
        }
    }
}
