//! One node: a `form node run` process with a data directory of its own.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use form_node::api::types::NodeView;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{Context, Error, Form, Result, Room, Scene};

/// How long it may take to be up, or to end when asked.
const PATIENCE: Duration = Duration::from_secs(60);
/// Below those that the kernel gives to whoever connects somewhere: a port that was free stays so.
const PORTS: Range<u16> = 20_000..32_000;

/// Where and how a node runs.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its namespaces; the host's own when `None`.
    pub room: Option<Arc<Room>>,
    /// Address of its API.
    pub api: SocketAddr,
    /// Address of its transport.
    pub quic: SocketAddr,
    /// Another QEMU than the host's.
    pub qemu: Option<PathBuf>,
}

impl NodeOptions {
    /// On this host, at ports of 127.0.0.1 that nobody has now.
    ///
    /// # Errors
    /// There are none.
    pub fn local() -> Result<Self> {
        let mut random = [0; 2];
        let mut source = File::open("/dev/urandom").context(|| "open /dev/urandom".into())?;
        for _ in 0..100 {
            source.read_exact(&mut random).context(|| "read /dev/urandom".into())?;
            let port = PORTS.start + u16::from_le_bytes(random) % (PORTS.end - PORTS.start);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return Ok(Self { room: None, api: address, quic: address, qemu: None });
            }
        }
        Err(Error::new(format!("no free port in {PORTS:?}")))
    }
}

/// A node, running or not. Its guests outlive it; the scene does away with them.
#[derive(Debug)]
pub struct Node {
    name: String,
    form: Form,
    data: PathBuf,
    log: PathBuf,
    options: NodeOptions,
    process: Option<Child>,
}

impl Node {
    /// Makes its data directory and enrols it in the scene's store; does not run it yet.
    ///
    /// # Errors
    /// `form node init` failed.
    pub fn init(scene: &Scene, name: &str, form: &Path, options: NodeOptions) -> Result<Self> {
        let data = scene.dir().join(name);
        let form =
            Form::new(form.to_owned(), options.room.clone()).with("FORM_NODE", format!("http://{}", options.api));
        let store = format!("sqlite:{}", scene.dir().join("store/state.db").display());
        let (data_text, api, quic) = (data.to_string_lossy(), options.api.to_string(), options.quic.to_string());
        let mut arguments =
            vec!["node", "init", "--data", &data_text, "--store", &store, "--api", &api, "--quic", &quic];
        let qemu = options.qemu.as_ref().map(|path| path.to_string_lossy().into_owned());
        if let Some(qemu) = &qemu {
            arguments.extend(["--qemu", qemu]);
        }
        let _: serde_json::Value = form.json(&arguments)?;
        Ok(Self {
            name: name.to_owned(),
            log: scene.dir().join(format!("{name}.log")),
            form,
            data,
            options,
            process: None,
        })
    }

    /// Runs it, and waits until it answers. One that runs already is only waited for.
    ///
    /// # Errors
    /// It ended, or does not answer; with the end of its log.
    pub fn start(&mut self) -> Result<()> {
        self.begin()?;
        let until = Instant::now() + PATIENCE;
        while self.view().is_err() {
            if let Some(status) = self.exited()? {
                return Err(Error::new(format!("node {} ended with {status}: {}", self.name, self.log_tail())));
            }
            if Instant::now() > until {
                self.kill();
                return Err(Error::new(format!("node {} does not answer: {}", self.name, self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs it, if it does not run, and waits for nothing.
    ///
    /// # Errors
    /// It can't be run.
    pub fn begin(&mut self) -> Result<()> {
        if self.process.is_some() && self.exited()?.is_none() {
            return Ok(());
        }
        let io = || format!("run node {}", self.name);
        let log = File::options().create(true).append(true).open(&self.log).context(io)?;
        // A group of its own: a Ctrl-C on the terminal is for whoever runs it.
        let mut command =
            self.form.command(["node".as_ref(), "run".as_ref(), "--data".as_ref(), self.data.as_os_str()]);
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().context(io)?).stderr(log);
        self.process = Some(command.spawn().context(io)?);
        Ok(())
    }

    /// How it ended, if it has ended by itself.
    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let status = process.try_wait().context(|| format!("look at node {}", self.name))?;
        if status.is_some() {
            self.process = None;
        }
        Ok(status)
    }

    /// SIGKILL: it does nothing more. Its guests run on.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Gone already is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGSTOP: it stands still, and what it holds stays held.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().ok_or_else(|| Error::new(format!("node {} does not run", self.name)))?;
        kill_process(Pid::from_child(process), signal).context(|| format!("signal node {}", self.name))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn view(&self) -> Result<NodeView> {
        self.form.json(&["node", "status"])
    }

    /// Asks it to end (SIGTERM) and waits. Its guests run on.
    ///
    /// # Errors
    /// It does not end, or says it failed.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let io = || format!("end node {}", self.name);
        kill_process(Pid::from_child(&process), Signal::TERM).context(io)?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = process.try_wait().context(io)? {
                break status;
            }
            if Instant::now() > until {
                let _ = process.kill();
                let _ = process.wait();
                return Err(Error::new(format!("node {} did not end: {}", self.name, self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if status.success() {
            return Ok(());
        }
        Err(Error::new(format!("node {} ended with {status}: {}", self.name, self.log_tail())))
    }

    /// Kills it where it stands, and whatever is of its process group (SIGKILL). Its guests are not.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().ok_or_else(|| Error::new(format!("node {} does not run", self.name)))?;
        let io = || format!("kill node {}", self.name);
        kill_process_group(Pid::from_child(&process), Signal::KILL).context(io)?;
        process.wait().map(drop).context(io)
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Its name in the scene.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where it is.
    pub fn options(&self) -> &NodeOptions {
        &self.options
    }

    /// A `form` that asks it, without a key.
    pub fn form(&self) -> Form {
        self.form.clone()
    }

    /// Lets the process live on when this is dropped; its pid.
    pub fn detach(&mut self) -> Option<u32> {
        self.process.take().map(|process| process.id())
    }

    /// Its log, of all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of it.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n    ")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
