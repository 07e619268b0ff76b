//! The instance spec: what is read, and what is refused with which word.

use std::path::PathBuf;

use form_node::ErrorCode;
use form_node::spec::{FilesSpec, InstanceSpec, QemuSpec, VmmSpec, WayBack};
use form_vmm_hooks::{Health, Probe};

const GOOD: &str = r#"
vmm = "qemu"
memory = "512MiB"
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd.img"
cmdline = "console=ttyS0 root=/dev/vda rw"

[[disk]]
name = "disk0"
path = "/srv/root.raw"

[network]
mac = "52:54:00:AA:bb:01"
"#;

#[test]
fn a_spec_is_read() {
    let spec = InstanceSpec::parse(GOOD).expect("good");
    let qemu = QemuSpec {
        memory_bytes: 512 << 20,
        vcpus: 1,
        kernel: "/boot/vmlinuz".into(),
        initrd: Some("/boot/initrd.img".into()),
        cmdline: "console=ttyS0 root=/dev/vda rw".into(),
        way_back: WayBack::Auto,
        mac: Some("52:54:00:aa:bb:01".into()),
    };
    assert_eq!(spec.vmm, VmmSpec::Qemu(qemu.clone()));
    assert_eq!(spec.clone().for_sibling().vmm, VmmSpec::Qemu(QemuSpec { mac: None, ..qemu.clone() }));
    assert_eq!(spec.disks.len(), 1);
    assert_eq!((spec.disks[0].name.as_str(), spec.disks[0].template.to_str()), ("disk0", Some("/srv/root.raw")));
    let kept = serde_json::to_string(&spec).expect("json");
    assert_eq!(serde_json::from_str::<InstanceSpec>(&kept).expect("json"), spec);
    let least = InstanceSpec::parse("vmm = \"qemu\"\nmemory = \"32MiB\"\nkernel = \"/k\"").expect("the least there is");
    let (kernel, cmdline) = ("/k".into(), String::new());
    let bare = QemuSpec { memory_bytes: 32 << 20, kernel, cmdline, initrd: None, mac: None, ..qemu };
    assert_eq!(least, InstanceSpec { vmm: VmmSpec::Qemu(bare), disks: Vec::new(), health: None });
}

#[test]
fn the_way_back_is_chosen_by_one_word() {
    for (word, way_back) in [("auto", WayBack::Auto), ("paused", WayBack::Paused), ("saved", WayBack::Saved)] {
        let spec = InstanceSpec::parse(&format!("way_back = {word:?}\n{GOOD}")).expect("good");
        let VmmSpec::Qemu(qemu) = &spec.vmm else { panic!("{spec:?}") };
        assert_eq!(qemu.way_back, way_back);
    }
}

const FILES: &str = r#"
vmm = "files"
memory_path = "/srv/ram"

[[disk]]
name = "disk0"
path = "/srv/root.raw"

[commands]
pause = ["drive", "pause", "a word"]
resume = ["drive"]
"#;

#[test]
fn a_machine_may_be_only_files() {
    let spec = InstanceSpec::parse(FILES).expect("good");
    let VmmSpec::Files(FilesSpec { memory_template: Some(memory), commands }) = &spec.vmm else { panic!("{spec:?}") };
    assert_eq!((memory.to_str(), commands.timeout_s), (Some("/srv/ram"), 30));
    assert_eq!(
        (commands.pause.as_slice(), commands.resume.len()),
        (&["drive", "pause", "a word"].map(String::from)[..], 1)
    );
    assert!(commands.start.is_empty() && commands.stop.is_empty());
    let kept = serde_json::to_string(&spec).expect("json");
    assert_eq!(serde_json::from_str::<InstanceSpec>(&kept).expect("json"), spec);
    let least =
        InstanceSpec::parse("vmm = \"files\"\n[[disk]]\nname = \"d\"\npath = \"/d\"").expect("the least there is");
    assert!(matches!(least.vmm, VmmSpec::Files(FilesSpec { memory_template: None, .. })));
}

#[test]
fn one_question_is_asked_of_a_new_vm() {
    let parse = |text: &str| InstanceSpec::parse(text).expect("good").health.expect("a question");
    let health = |question: &str| parse(&format!("{GOOD}[health]\n{question}"));
    assert_eq!(health("tcp_port = 80"), Health { probe: Probe::TcpPort(80), timeout_s: 30 });
    assert_eq!(health("agent_ping = true\ntimeout_s = 3600"), Health { probe: Probe::AgentPing, timeout_s: 3600 });
    let command = Probe::Command(["ok", "a word"].map(String::from).to_vec());
    let asked = parse(&format!("{FILES}[health]\ncommand = [\"ok\", \"a word\"]\ntimeout_s = 1"));
    assert_eq!(asked, Health { probe: command, timeout_s: 1 });
}

#[test]
fn the_examples_of_the_documentation_are_good() {
    let text = include_str!("../../../docs/instance-spec.md");
    let examples: Vec<_> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    examples.iter().for_each(|example| drop(InstanceSpec::parse(example).expect("good")));
}

#[test]
fn what_can_not_be_done_is_refused_by_name() {
    use ErrorCode::{BadRequest, Unsupported};
    let one_more = GOOD.replace("[network]", "[[disk]]\nname = \"disk0\"\npath = \"/srv/b.raw\"\n[network]");
    let many: String = (0..17).map(|n| format!("[[disk]]\nname = \"d{n}\"\npath = \"/srv/{n}.raw\"\n")).collect();
    let many = GOOD.replace("[network]", &format!("{many}[network]"));
    let health = |text: &str| format!("{GOOD}[health]\n{text}");
    let cases = [
        (GOOD.replace("\"qemu\"", "\"firecracker\""), Unsupported, "firecracker"),
        (GOOD.replace("\"qemu\"", "\"cloud-hypervisor\""), Unsupported, "cloud-hypervisor"),
        (GOOD.replace("\"qemu\"", "\"xen\""), BadRequest, "xen"),
        (GOOD.replace("512MiB", "65GiB"), Unsupported, "more than"),
        (GOOD.replace("512MiB", "65537MiB"), Unsupported, "more than"),
        (GOOD.replace("512MiB", "8MiB"), BadRequest, "too little"),
        (GOOD.replace("512MiB", "524290KiB"), BadRequest, "whole number of MiB"),
        (GOOD.replace("512MiB", "512M"), BadRequest, "512M"),
        (format!("vcpus = 2\n{GOOD}"), Unsupported, "2 virtual CPUs"),
        (format!("vcpus = 0\n{GOOD}"), Unsupported, "0 virtual CPUs"),
        (format!("passthrough = [\"0000:01:00.0\"]\n{GOOD}"), Unsupported, "host device"),
        (GOOD.replace("/srv/root.raw\"", "/srv/root.qcow2\"\nformat = \"qcow2\""), Unsupported, "qcow2"),
        (GOOD.replace("/srv/root.raw\"", "/srv/root\"\nformat = \"iso\""), BadRequest, "iso"),
        (GOOD.replace("/srv/root.raw\"", "/srv/root.raw\"\ncommit = \"kept\""), Unsupported, "kept"),
        (GOOD.replace("/srv/root.raw\"", "/srv/root.raw\"\ncommit = \"no\""), BadRequest, "commit"),
        (GOOD.replace("/srv/root.raw", "root.raw"), BadRequest, "absolute"),
        (GOOD.replace("/boot/vmlinuz", "vmlinuz"), BadRequest, "kernel"),
        (GOOD.replace("disk0", "memory"), BadRequest, "memory"),
        (GOOD.replace("disk0", "../x"), BadRequest, "../x"),
        (GOOD.replace("console=", "a\\nb="), BadRequest, "control character"),
        (GOOD.replace("52:54:00:AA:bb:01", "53:54:00:aa:bb:01"), BadRequest, "network.mac"),
        (GOOD.replace("52:54:00:AA:bb:01", "52:54:00:aa:bb"), BadRequest, "network.mac"),
        (GOOD.replace("vmm", "vmn"), BadRequest, "vmn"),
        (GOOD.replace("name = \"disk0\"", "name = \"disk0\"\nsize = \"1GiB\""), BadRequest, "size"),
        (GOOD.replace("kernel", "# kernel"), BadRequest, "kernel"),
        (one_more, BadRequest, "disk0"),
        (format!("commands = {{ stop = [\"x\"] }}\n{GOOD}"), BadRequest, "commands"),
        (format!("memory = \"64MiB\"\n{FILES}"), BadRequest, "memory"),
        (FILES.replace("memory_path", "kernel"), BadRequest, "kernel"),
        (FILES.replace("memory_path = \"/", "memory_path = \""), BadRequest, "memory_path"),
        ("vmm = \"files\"".into(), BadRequest, "no file"),
        (FILES.replace("resume", "# resume"), BadRequest, "commands.resume"),
        (FILES.replace("[\"drive\"]", "[\"/bin/sh\"]"), BadRequest, "commands.resume"),
        (FILES.replace("[\"drive\"]", "[\"..\"]"), BadRequest, "commands.resume"),
        (FILES.replace("[\"drive\"]", "[]"), BadRequest, "commands.resume"),
        (format!("{FILES}timeout_s = 0"), BadRequest, "timeout_s"),
        (format!("{FILES}wait = 1"), BadRequest, "wait"),
        (health("command = [\"ok\"]\ntcp_port = 80"), BadRequest, "exactly one of"),
        (health("timeout_s = 5"), BadRequest, "exactly one of"),
        (health("agent_ping = false"), BadRequest, "agent_ping"),
        (health("tcp_port = 0"), BadRequest, "health.tcp_port = 0"),
        (health("tcp_port = 65536"), BadRequest, "1 to 65535"),
        (health("tcp_port = 80\ntimeout_s = 0"), BadRequest, "health.timeout_s"),
        (health("tcp_port = 80\ntimeout_s = 3601"), BadRequest, "health.timeout_s"),
        (health("tcp_port = 80\nretries = 3"), BadRequest, "retries"),
        (health("command = []"), BadRequest, "health.command is empty"),
        (health("command = [\"/bin/sh\"]"), BadRequest, "health.command"),
        (format!("{FILES}[health]\nagent_ping = true"), BadRequest, "health.command alone"),
        (format!("{FILES}[health]\ntcp_port = 80"), BadRequest, "health.command alone"),
        (format!("way_back = \"kept\"\n{GOOD}"), BadRequest, "way_back"),
        (format!("way_back = \"saved\"\n{FILES}"), BadRequest, "way_back"),
        (many, BadRequest, "18 disks"),
        ("x".repeat(100_000), BadRequest, "100000 bytes"),
    ];
    for (text, code, word) in cases {
        let error = InstanceSpec::parse(&text).expect_err(word);
        let said = format!(
            "{} {} {}",
            error.message,
            error.cause.clone().unwrap_or_default(),
            error.remedy.clone().unwrap_or_default()
        );
        assert_eq!(error.code, code, "{said}");
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
}

/// What another node sends is checked like what a person writes.
#[test]
fn a_spec_that_was_not_parsed_is_checked_too() {
    let spec = InstanceSpec::parse(GOOD).expect("good");
    spec.validate().expect("good");
    type Change = fn(&mut InstanceSpec);
    fn qemu(spec: &mut InstanceSpec) -> &mut QemuSpec {
        match &mut spec.vmm {
            VmmSpec::Qemu(qemu) => qemu,
            other => panic!("{other:?}"),
        }
    }
    let cases: [(&str, Change); 11] = [
        ("2 virtual CPUs", |s| qemu(s).vcpus = 2),
        ("more than", |s| qemu(s).memory_bytes = 65 << 30),
        ("MiB", |s| qemu(s).memory_bytes += 1),
        ("absolute", |s| qemu(s).kernel = "vmlinuz".into()),
        ("initrd", |s| qemu(s).initrd = Some("/a\nb".into())),
        ("control character", |s| qemu(s).cmdline = "a\nb".into()),
        ("commands.timeout_s", |s| s.vmm = VmmSpec::Files(FilesSpec::default())),
        ("../../x", |s| s.disks[0].name = "../../x".into()),
        ("health.timeout_s", |s| s.health = Some(Health { probe: Probe::AgentPing, timeout_s: 0 })),
        ("health.command", |s| s.health = Some(Health { probe: Probe::Command(vec!["..".into()]), timeout_s: 9 })),
        ("two disks", |s| s.disks.push(s.disks[0].clone())),
    ];
    for (word, change) in cases {
        let mut changed = spec.clone();
        change(&mut changed);
        let error = changed.validate().expect_err(word);
        assert!(error.message.contains(word), "{word:?} is not in {:?}", error.message);
    }
}

#[test]
fn the_files_must_be_there_and_raw() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let spec = |kernel: &str, disk: &str| {
        let text = GOOD
            .replace("/boot/vmlinuz", &path(kernel))
            .replace("/boot/initrd.img", &path("initrd"))
            .replace("/srv/root.raw", &path(disk));
        InstanceSpec::parse(&text).expect("good")
    };
    let write = |name: &str, bytes: &[u8]| std::fs::write(path(name), bytes).expect("write");
    write("kernel", b"k");
    write("raw", &[0; 1024]);
    write("odd", &[0; 1000]);
    write("empty", b"");
    write("qcow2", b"QFI\xfb\0\0\0\x03");
    std::fs::create_dir(path("directory")).expect("mkdir");

    let error = spec("kernel", "raw").check_boot_files(&[]).expect_err("no initrd");
    assert_eq!(error.code, ErrorCode::MissingDependency);
    write("initrd", b"i");
    spec("kernel", "raw").check_boot_files(&[]).expect("all there");
    let error = spec("no-kernel", "raw").check_boot_files(&[]).expect_err("no kernel");
    assert_eq!(error.code, ErrorCode::MissingDependency);
    assert!(error.message.contains("no-kernel"), "{}", error.message);

    assert_eq!(spec("kernel", "raw").check_disk_templates(&[]).expect("raw").len(), 1);
    // The node's own, also by another name.
    std::fs::write(path("directory/disk"), [0; 512]).expect("write");
    std::os::unix::fs::symlink(path("directory/disk"), path("link")).expect("link");
    let private = [PathBuf::from(path("directory"))];
    for own in ["directory/disk", "link"] {
        assert_eq!(spec("kernel", own).check_disk_templates(&private).expect_err(own).code, ErrorCode::NotAllowed);
        assert_eq!(spec(own, "raw").check_boot_files(&private).expect_err(own).code, ErrorCode::NotAllowed);
    }
    spec("kernel", "raw").check_boot_files(&private).expect("outside");
    spec("kernel", "raw").check_disk_templates(&private).expect("outside");
    for (disk, code) in [
        ("no-disk", ErrorCode::MissingDependency),
        ("qcow2", ErrorCode::Unsupported),
        ("directory", ErrorCode::Unsupported),
        ("odd", ErrorCode::BadRequest),
        ("empty", ErrorCode::BadRequest),
    ] {
        assert_eq!(spec("kernel", disk).check_disk_templates(&[]).expect_err(disk).code, code, "{disk}");
    }
}
