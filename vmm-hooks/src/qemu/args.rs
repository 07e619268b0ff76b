//! QEMU's command line: one guest, one line, and the same line again for its restore.
//!
//! A device state fits only the same devices in the same slots, so that every slot is fixed here and nothing is left to
//! QEMU's defaults.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{Error, HostFacts, Machine, Result};

/// The network card, as `set_link` calls it.
pub(super) const NETWORK_CARD: &str = "vnet0";
/// PCI slots. 1 to 4 stay free for what q35 puts there.
const FIRST_DISK_SLOT: usize = 0x5;
const NETWORK_SLOT: usize = 0x6;
const RNG_SLOT: usize = 0x7;
/// Behind the last disk's.
const AGENT_SLOT: usize = MORE_DISKS_SLOT + crate::DISKS_MAX - 1;
/// The second disk's slot, and on from there.
const MORE_DISKS_SLOT: usize = 0x8;

/// How a process begins; always with its vCPUs stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// From the kernel.
    Boot,
    /// From a device state that the monitor will be told of.
    Incoming,
    /// The same, and what it writes is its own: RAM is mapped privately, and each disk is below a layer that has no name.
    /// A TCP port of the guest can be reached at some port of this host's loopback.
    Probation {
        /// The guest's port.
        tcp_port: Option<u16>,
    },
}

/// Listening sockets, as numbers in the process to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sockets {
    pub(super) monitor: RawFd,
    pub(super) keeper: RawFd,
    pub(super) console: RawFd,
    /// If the machine has an agent's port.
    pub(super) agent: Option<RawFd>,
}

/// The machine's own files, open for reading and writing (its disks on probation only for reading), as numbers in the process to be.
#[derive(Clone, Debug)]
pub(super) struct Images {
    pub(super) ram: RawFd,
    /// In the machine's order.
    pub(super) disks: Vec<RawFd>,
}

/// Fails only for a path that is not UTF-8.
///
/// What was checked is what is used: RAM and disks are descriptors, and their paths stand there only to be read. A disk is
/// handed over as QEMU would have it (`-add-fd`); for RAM, which QEMU opens by itself, the descriptor has a name in /proc.
pub(super) fn command_line(
    machine: &Machine,
    host: &HostFacts,
    start: Start,
    sockets: Sockets,
    images: &Images,
) -> Result<Vec<OsString>> {
    let memory_mib = machine.memory_bytes >> 20;
    let ram = format!("/proc/self/fd/{}", images.ram);
    let cpu = if host.accelerator == "kvm" { "host" } else { "max" };
    let probation = matches!(start, Start::Probation { .. });
    let share = if probation { "off" } else { "on" };
    let mut line = Line(Vec::new());
    line.flag("-no-user-config").flag("-nodefaults").option("-display", "none").flag("-S");
    line.option("-name", &machine.name).option("-uuid", &machine.uuid);
    line.option(
        "-machine",
        &format!("{},accel={},memory-backend=ram0,vmport=off", host.machine_type, host.accelerator),
    );
    line.option("-cpu", cpu).option("-smp", "1").option("-m", &format!("{memory_mib}M"));
    line.option(
        "-object",
        &format!("memory-backend-file,id=ram0,size={memory_mib}M,mem-path={ram},share={share},prealloc=off"),
    );
    // A restored guest needs them too: when it reboots.
    line.option("-kernel", &absolute(machine, "kernel", &machine.kernel)?);
    if let Some(initrd) = &machine.initrd {
        line.option("-initrd", &absolute(machine, "initrd", initrd)?);
    }
    line.option("-append", &machine.cmdline);
    line.option("-chardev", &format!("socket,id=ser0,fd={},server=on,wait=off", sockets.console));
    line.option("-device", "isa-serial,chardev=ser0");
    line.option("-chardev", &format!("socket,id=mon0,fd={},server=on,wait=off", sockets.monitor));
    line.option("-mon", "chardev=mon0,mode=control");
    line.option("-chardev", &format!("socket,id=mon1,fd={},server=on,wait=off", sockets.keeper));
    line.option("-mon", "chardev=mon1,mode=control");
    for (number, (disk, fd)) in machine.disks.iter().zip(&images.disks).enumerate() {
        let (node, file) = (disk_node(number), format!("disk{number}-file"));
        let path = comma(&absolute(machine, "disks", &disk.path)?);
        line.option("-add-fd", &format!("fd={fd},set={number},opaque={path}"));
        let set = format!("/dev/fdset/{number}");
        if probation {
            // The layer is a file in `TMPDIR` that QEMU makes and removes at once: it goes with the process.
            line.option("-drive", &format!("if=none,id={node},file={set},format=raw,snapshot=on,discard=unmap"));
        } else {
            let cache = json!({ "direct": false, "no-flush": false });
            let file_node =
                json!({ "driver": "file", "node-name": file, "filename": set, "cache": cache, "discard": "unmap" });
            let raw_node = json!({ "driver": "raw", "node-name": node, "file": file, "discard": "unmap" });
            line.option("-blockdev", &file_node.to_string()).option("-blockdev", &raw_node.to_string());
        }
        let slot = if number == 0 { FIRST_DISK_SLOT } else { MORE_DISKS_SLOT + number - 1 };
        line.option("-device", &format!("virtio-blk-pci,id=vblk{number},drive={node},addr={slot:#x}"));
    }
    // Restricted: nothing gets in or out but what is forwarded.
    let forward = match start {
        Start::Probation { tcp_port: Some(port) } => format!(",hostfwd=tcp:127.0.0.1:0-:{port}"),
        _ => String::new(),
    };
    line.option("-netdev", &format!("user,id=n0,restrict=on{forward}"));
    line.option(
        "-device",
        &format!("virtio-net-pci,id={NETWORK_CARD},netdev=n0,mac={},addr={NETWORK_SLOT:#x},romfile=", machine.mac),
    );
    line.option("-device", &format!("virtio-rng-pci,addr={RNG_SLOT:#x}"));
    line.option("-device", &format!("vmgenid,guid={}", machine.generation_id));
    if let Some(agent) = sockets.agent {
        line.option("-chardev", &format!("socket,id=qga0,fd={agent},server=on,wait=off"));
        line.option("-device", &format!("virtio-serial-pci,id=vser0,addr={AGENT_SLOT:#x}"));
        line.option("-device", "virtserialport,bus=vser0.0,chardev=qga0,name=org.qemu.guest_agent.0");
    }
    if start != Start::Boot {
        line.option("-incoming", "defer");
    }
    Ok(line.0)
}

/// The uuid of a QEMU that has a disk below `root`, from its command line.
pub(super) fn uuid_of(words: &[Vec<u8>], root: &Path) -> Option<String> {
    let below = format!("opaque={}/", comma(root.to_str()?));
    let has = |word: &Vec<u8>| word.windows(below.len()).any(|part| part == below.as_bytes());
    let uuid = words.iter().skip_while(|word| *word != b"-uuid").nth(1)?;
    words.iter().any(has).then(|| String::from_utf8_lossy(uuid).into_owned())
}

/// The block node that a disk is to the guest, whatever is below it.
pub(super) fn disk_node(number: usize) -> String {
    format!("disk{number}")
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn option(&mut self, name: &str, value: &str) -> &mut Self {
        self.flag(name).flag(value)
    }
}

fn absolute(machine: &Machine, field: &'static str, path: &Path) -> Result<String> {
    let refuse = |problem: String| Error::Machine { name: machine.name.clone(), field, problem };
    let absolute: PathBuf = std::path::absolute(path).map_err(|error| refuse(error.to_string()))?;
    absolute.into_os_string().into_string().map_err(|path| refuse(format!("{} is not UTF-8", path.display())))
}

/// In QEMU's comma-separated options a comma is written twice.
fn comma(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MachineDisk;
    use crate::machine::tests::machine;

    fn line(machine: &Machine, start: Start) -> Vec<String> {
        let host = HostFacts {
            vmm: "qemu".into(),
            version: "7.2.22".into(),
            machine_type: "pc-q35-7.2".into(),
            accelerator: "tcg".into(),
            cpu_model: "max".into(),
        };
        let images = Images { ram: 8, disks: (9..).take(machine.disks.len()).collect() };
        let agent = machine.agent.then_some(4);
        let sockets = Sockets { monitor: 5, keeper: 7, console: 6, agent };
        let line = command_line(machine, &host, start, sockets, &images).unwrap();
        line.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn a_restore_is_the_same_line_and_two_words() {
        let boot = line(&machine(), Start::Boot);
        let restore = line(&machine(), Start::Incoming);
        assert_eq!(restore.split_at(boot.len()), (&boot[..], &["-incoming".to_owned(), "defer".to_owned()][..]));
        assert_eq!(boot.iter().filter(|word| *word == "-S").count(), 1);
    }

    #[test]
    fn on_probation_it_has_the_same_devices_and_nothing_to_write_to() {
        let mut guest = machine();
        guest.agent = true;
        let [restore, probation] = [Start::Incoming, Start::Probation { tcp_port: Some(80) }].map(|s| line(&guest, s));
        let devices = |line: &[String]| -> Vec<String> {
            line.iter().filter(|word| word.contains("addr=") || word.starts_with("virtserialport")).cloned().collect()
        };
        assert_eq!(devices(&probation), devices(&restore));
        assert_eq!(devices(&probation).len(), 5);
        let has = |word: &str| probation.iter().any(|w| w == word);
        assert!(has("if=none,id=disk0,file=/dev/fdset/0,format=raw,snapshot=on,discard=unmap"));
        assert!(has("user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:0-:80"));
        assert!(!probation.iter().any(|word| word.contains("share=on") || word == "-blockdev"), "{probation:?}");
    }

    #[test]
    fn every_device_has_a_slot_of_its_own() {
        let mut many = machine();
        many.agent = true;
        for number in 1..crate::DISKS_MAX {
            many.disks.push(MachineDisk { name: format!("d{number}"), path: "/d".into() });
        }
        let words = line(&many, Start::Boot);
        let slots: Vec<&str> = words.iter().filter_map(|word| word.split("addr=").nth(1)).collect();
        let slots: std::collections::HashSet<&str> = slots.iter().map(|slot| slot.split(',').next().unwrap()).collect();
        assert_eq!(slots.len(), crate::DISKS_MAX + 3);
        assert!(slots.iter().all(|slot| u8::from_str_radix(&slot[2..], 16).unwrap() < 0x1f));
    }

    #[test]
    fn images_are_descriptors_and_paths_may_hold_commas_and_quotes() {
        let mut odd = machine();
        odd.ram_path = "/a,b/ram".into();
        odd.disks[0].path = "/a,\"b/disk".into();
        let words = line(&odd, Start::Boot);
        assert!(words.iter().any(|word| word.contains("mem-path=/proc/self/fd/8,share=on")));
        assert!(words.contains(&r#"fd=9,set=0,opaque=/a,,"b/disk"#.to_owned()));
        assert!(words.iter().any(|word| word.contains(r#""filename":"/dev/fdset/0""#)));
        assert!(!words.iter().any(|word| word.contains("/a,b")));
        let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
        let uuid = |root: &str| uuid_of(&words, Path::new(root));
        assert_eq!(uuid("/a,\"b").as_ref(), Some(&odd.uuid));
        assert_eq!((uuid("/a"), uuid("/a,\"b/d"), uuid_of(&words[..3], Path::new("/a,\"b"))), (None, None, None));
    }
}
