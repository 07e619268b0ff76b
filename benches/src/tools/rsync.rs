use std::{fs, net::TcpListener, os::fd::OwnedFd, process::Command, process::Stdio, thread};

use super::{Job, Tool, Update};
use crate::{
    Result,
    process::{Running, Usage},
};

/// rsync pushes to a daemon on loopback that has the base and changes it in place. Both ends run at once: the wall time is the source's.
pub(super) struct Rsync {
    pub(super) compressed: bool,
}

impl Tool for Rsync {
    fn name(&self) -> &'static str {
        if self.compressed { "rsync-z" } else { "rsync" }
    }

    fn in_place(&self) -> bool {
        true
    }

    fn update(&self, job: &Job<'_>, source: &mut Usage, target: &mut Usage) -> Result<Update> {
        let config = job.work.join("rsyncd.conf");
        let home = job.standby.parent().ok_or("a standby image without a directory")?;
        let owner = if rustix::process::geteuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
        let module = format!("[target]\npath = {}\nread only = no\nuse chroot = no\n{owner}", home.display());
        fs::write(&config, module)?;

        // The daemon is started for the one connection, as inetd would: so it is our child, and what it uses is known.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let daemon = thread::spawn(move || -> Result<Usage> {
            let (connection, _) = listener.accept()?;
            connection.set_nodelay(true)?;
            let mut command = Command::new("rsync");
            command.arg("--daemon").arg(format!("--config={}", config.display()));
            command.stdin(Stdio::from(OwnedFd::from(connection)));
            let running = Running::start(&mut command)?;
            drop(command);
            Ok(running.wait()?.0)
        });
        let name = job.standby.file_name().unwrap_or_default().to_string_lossy();
        let mut push = Command::new("rsync");
        push.args(["--inplace", "--no-whole-file", "--ignore-times", "--stats", "--no-human-readable"]);
        push.args(self.compressed.then_some("-z")).arg(job.new).arg(format!("rsync://127.0.0.1:{port}/target/{name}"));
        push.stdin(Stdio::null()).env_remove("RSYNC_PROXY");
        let printed = source.run(&mut push)?;
        let daemon = daemon.join().map_err(|_| "rsync's daemon was not started")??;
        target.add(Usage { wall_s: 0.0, ..daemon });

        let count = |label: &str| -> Result<u64> {
            let line =
                printed.lines().find_map(|line| line.strip_prefix(label)).ok_or("rsync printed no statistics")?;
            Ok(line.replace(',', "").trim().parse()?)
        };
        let wire_bytes = count("Total bytes sent:")? + count("Total bytes received:")?;
        Ok(Update { wire_bytes, result: Some(job.standby.to_owned()), ..Update::default() })
    }
}
