//! A running cluster of two, and a target that can't take the commit, or a source that can't give it.

use std::net::SocketAddr;
use std::sync::Arc;

use form_node::ErrorCode;
use form_node::api::types::{AttemptEvent, CommitAccepted, InstanceView};
use form_tests::{Assets, Cluster, Context, FaultyQemu, Form, Guest, NodeOptions, Refusal, Result, Room, Scene};

use crate::expect::refused;
use crate::key::random_key;
use crate::signed::{SignedCommit, now_ms};

/// Where node 2 keeps its data: enough for a commit, and little enough to be filled.
const DISK_MIB: u64 = 2048;
/// What is left of it when it is full; a commit of this guest needs several times that.
const LEFT_MIB: u64 = 100;
const COMMIT: [&str; 6] = ["manage", "commit", "--name", "duo-1", "--description", "bad input"];

/// The instances as they are, so that what a refusal changed would be seen.
struct Before {
    instances: Vec<InstanceView>,
    boot_ids: Vec<String>,
}

struct World {
    cluster: Cluster,
    guests: Vec<Guest>,
    room: Arc<Room>,
    qemu: FaultyQemu,
    key: String,
}

/// One cluster for all of it: booting guests is what takes time. Each step leaves it as it found it.
#[test]
fn a_cluster_that_can_not_commit_says_why_and_goes_on() -> Result<()> {
    let mut world = World::new()?;
    world.a_target_is_down()?;
    world.a_target_is_full()?;
    world.a_target_has_another_qemu()?;
    world.a_target_has_another_cpu()?;
    world.a_target_is_stopped()?;
    world.the_source_is_stopped()?;
    world.another_commit_is_under_way()?;
    world.a_request_comes_again()?;
    drop(world.guests);
    world.cluster.shut_down()
}

impl World {
    fn new() -> Result<Self> {
        let (assets, scene, key) = (Assets::find()?, Scene::new()?, random_key()?);
        let qemu = FaultyQemu::new(&scene, "q2")?;
        let room = Arc::new(Room::new(&scene, false)?);
        let data = scene.dir().join("n2");
        std::fs::create_dir(&data).context(|| format!("make {}", data.display()))?;
        let size = format!("size={DISK_MIB}m,mode=0700");
        room.run("mount", &["-t", "tmpfs", "-o", &size, "n2", &data.to_string_lossy()])?;
        let second = NodeOptions { room: Some(Arc::clone(&room)), qemu: Some(qemu.program()), ..NodeOptions::local()? };
        let plan = vec![NodeOptions::local()?, second];
        let cluster = Cluster::start(scene, assets, plan, ("FORM_PRIVATE_KEY", key.clone()))?;
        let guests = cluster.boot_all("duo", 2)?;
        Ok(Self { cluster, guests, room, qemu, key })
    }

    fn form(&self) -> Form {
        self.cluster.form(1)
    }

    fn api(&self) -> SocketAddr {
        self.cluster.node_ref(1).options().api
    }

    fn before(&mut self) -> Result<Before> {
        let boot_ids = self.guests.iter_mut().map(Guest::boot_id).collect::<Result<_>>()?;
        Ok(Before { instances: self.form().instances()?, boot_ids })
    }

    /// The same instances, running what they ran; both shells answer, from the same boot.
    fn unchanged(&mut self, before: &Before) -> Result<()> {
        assert_eq!(self.form().instances()?, before.instances);
        for (guest, boot_id) in self.guests.iter_mut().zip(&before.boot_ids) {
            guest.attach()?;
            assert_eq!(&guest.boot_id()?, boot_id, "{}", guest.name());
        }
        for number in [1, 2] {
            let staging = self.cluster.node_ref(number).data().join("staging");
            let said = match number {
                1 => std::fs::read_dir(&staging).map_or(0, Iterator::count),
                _ => self
                    .room
                    .run("sh", &["-c", "ls -A \"$1\" 2> /dev/null || :", "sh", &staging.to_string_lossy()])?
                    .lines()
                    .count(),
            };
            assert_eq!(said, 0, "node {number} has something in {}", staging.display());
        }
        Ok(())
    }

    /// A commit that must be refused, before anything was paused.
    fn commit_refused(&self, code: ErrorCode, words: &[&str]) -> Result<()> {
        let refusal = self.form().refused(&COMMIT)?;
        refused(&refusal, code, words);
        not_paused(&refusal);
        Ok(())
    }

    fn restart_second(&mut self) -> Result<()> {
        self.cluster.node(2).stop()?;
        self.cluster.node(2).start()
    }

    fn a_target_is_down(&mut self) -> Result<()> {
        let before = self.before()?;
        self.cluster.node(2).stop()?;
        self.commit_refused(ErrorCode::TargetUnavailable, &["duo-2"])?;
        self.cluster.node(2).start()?;
        self.unchanged(&before)
    }

    fn a_target_is_full(&mut self) -> Result<()> {
        let before = self.before()?;
        // Not while standbys grow beside it, nor with any that a commit could use instead of free space.
        self.cluster.node(2).stop()?;
        let data = self.cluster.node(2).data().to_string_lossy().into_owned();
        let fill = r#"set -e; cd "$1"; rm -rf standby
            free_kib=$(df -k --output=avail . | tail -n 1); fallocate -l "$((free_kib - $2 * 1024))KiB" ballast"#;
        self.room.run("sh", &["-c", fill, "sh", &data, &LEFT_MIB.to_string()])?;
        self.cluster.node(2).start()?;
        self.commit_refused(ErrorCode::TargetUnfit, &["duo-2", "space"])?;
        self.room.run("rm", &[&format!("{data}/ballast")])?;
        self.unchanged(&before)
    }

    fn a_target_has_another_qemu(&mut self) -> Result<()> {
        let before = self.before()?;
        self.qemu.pretend_version("99.9.9")?;
        self.restart_second()?;
        self.commit_refused(ErrorCode::TargetUnfit, &["duo-2", "99.9.9"])?;
        self.qemu.behave()?;
        self.restart_second()?;
        self.unchanged(&before)
    }

    /// Node 2 is shown a CPU that has KVM, and a /dev/kvm that opens: its guests would see that CPU.
    fn a_target_has_another_cpu(&mut self) -> Result<()> {
        let before = self.before()?;
        let disguise = self.cluster.scene().dir().join("disguise");
        std::fs::create_dir(&disguise).context(|| "make a directory".into())?;
        let put_on = r#"set -e; cd "$1"
            sed -e 's/^\(model name.*: \).*/\1Some other CPU/' -e 's/^\(flags.*\)/\1 svm/' /proc/cpuinfo > cpuinfo
            mkdir dev; mount -t tmpfs dev dev
            for file in null zero full random urandom tty; do cp -a /dev/$file dev/; done; : > dev/kvm
            mount --bind dev /dev; mount --bind cpuinfo /proc/cpuinfo"#;
        self.room.run("sh", &["-c", put_on, "sh", &disguise.to_string_lossy()])?;
        self.restart_second()?;
        self.commit_refused(ErrorCode::TargetUnfit, &["duo-2", "CPU", "Some other CPU"])?;
        self.room.run("umount", &["/proc/cpuinfo", "/dev"])?;
        self.restart_second()?;
        self.unchanged(&before)
    }

    fn a_target_is_stopped(&mut self) -> Result<()> {
        self.stop("duo-2")?;
        let before = self.form().instances()?;
        self.commit_refused(ErrorCode::WrongState, &["duo-2", "not running"])?;
        assert_eq!(self.form().instances()?, before);
        self.guests[1] = self.cluster.boot(2, "duo-2")?;
        self.guests[1].attach()
    }

    fn the_source_is_stopped(&mut self) -> Result<()> {
        self.stop("duo-1")?;
        let before = self.form().instances()?;
        self.commit_refused(ErrorCode::WrongState, &["duo-1", "not running"])?;
        assert_eq!(self.form().instances()?, before);
        self.guests[0] = self.cluster.boot(1, "duo-1")?;
        self.guests[0].attach()
    }

    fn stop(&self, name: &str) -> Result<()> {
        let _: InstanceView = self.form().json(&["manage", "stop", "--name", name])?;
        Ok(())
    }

    /// While the target's restore is held, nobody else may touch either instance; the first commit then succeeds.
    fn another_commit_is_under_way(&mut self) -> Result<()> {
        self.qemu.hold_restore()?;
        let form = self.form();
        let first = std::thread::spawn(move || form.commit("duo-1", "the first"));
        self.qemu.wait_until_held()?;
        let attempt = self.form().instance("duo-1")?.attempt_id.expect("it is in an attempt");
        self.commit_refused(ErrorCode::Conflict, &["duo-1", &attempt])?;
        for name in ["duo-1", "duo-2"] {
            let from_there = self.cluster.form(2).refused(&["manage", "stop", "--name", name])?;
            refused(&from_there, ErrorCode::Conflict, &[name, &attempt]);
        }
        self.qemu.behave()?;
        let summary = first.join().expect("the first commit's thread")?;
        assert!(summary.phases_ms.contains_key(PAUSE), "what refusals are searched for exists: {summary:?}");
        for name in ["duo-1", "duo-2"] {
            assert_eq!(self.form().instance(name)?.snapshot_id.as_ref(), Some(&summary.snapshot_id), "{name}");
        }
        self.guests[1].attach()
    }

    /// A request that was accepted is accepted once: again it is the same attempt, or refused; never a second commit.
    fn a_request_comes_again(&mut self) -> Result<()> {
        let (form, api) = (self.form(), self.api());
        let installation = self.cluster.node(1).view()?.installation_id;
        let source = form.instance("duo-1")?;
        let stale_parent = format!(",\"parent\":\"{}\"", "0".repeat(64));
        let reply = SignedCommit::new(&self.key, &installation, &source, now_ms(), &stale_parent)?.send(api)?;
        assert_eq!((reply.status, reply.error()?.code), (409, ErrorCode::Conflict), "{reply:?}");

        let request = SignedCommit::new(&self.key, &installation, &source, now_ms(), "")?;
        let reply = request.send(api)?;
        assert_eq!(reply.status, 202, "{reply:?}");
        let accepted: CommitAccepted = serde_json::from_str(&reply.body).context(|| format!("read {reply:?}"))?;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
        let settled = loop {
            let now = form.instance("duo-1")?;
            if now.attempt_id.is_none() && now.snapshot_id != source.snapshot_id {
                break now;
            }
            assert!(std::time::Instant::now() < until, "the commit does not end: {now:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        self.guests[1].attach()?;
        let before = self.before()?;

        let again = request.send(api)?;
        match again.status {
            202 => {
                let again: CommitAccepted = serde_json::from_str(&again.body).context(|| format!("read {again:?}"))?;
                assert_eq!(again.attempt_id, accepted.attempt_id, "it is the same attempt");
            }
            _ => assert_eq!(again.error()?.code, ErrorCode::ReplayedRequest, "{again:?}"),
        }
        assert_eq!(form.instance("duo-1")?, settled);
        self.unchanged(&before)
    }
}

/// The phase in which the guest stands still.
const PAUSE: &str = "pause";

#[track_caller]
fn not_paused(refusal: &Refusal) {
    let paused = |event: &&AttemptEvent| matches!(event, AttemptEvent::Phase { phase, .. } if phase == PAUSE);
    assert_eq!(refusal.events.iter().find(paused), None, "{refusal:?}");
}
