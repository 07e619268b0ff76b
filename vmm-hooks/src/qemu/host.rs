//! What this host's QEMU is, and whether KVM can be used.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::limits::PROBE_TIMEOUT;
use crate::{Error, HostFacts, Result};

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accel {
    /// KVM where the CPU has it and it may be used, else TCG.
    #[default]
    Auto,
    /// QEMU's translator: everywhere, and slowly.
    Tcg,
    /// KVM, or an error.
    Kvm,
}

/// Asks the binary and the host.
pub(super) async fn probe(binary: &Path, accel: Accel) -> Result<HostFacts> {
    let version = ask(binary, "--version", &["--version"]).await?;
    let version = parse_version(&version)
        .ok_or_else(|| not_understood(binary, "--version", "no version in its answer".into()))?;
    let machines = ask(binary, "-machine help", &["-machine", "help"]).await?;
    let machine_type = newest_q35(&machines)
        .ok_or_else(|| not_understood(binary, "-machine help", "no pc-q35 machine in its answer".into()))?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let kvm_opens = fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let kvm = use_kvm(accel, &cpuinfo, kvm_opens)?;
    Ok(HostFacts {
        vmm: "qemu".into(),
        version,
        machine_type,
        accelerator: if kvm { "kvm" } else { "tcg" }.into(),
        cpu_model: if kvm { format!("host ({})", cpu_name(&cpuinfo)) } else { "max".into() },
    })
}

async fn ask(binary: &Path, argument: &'static str, arguments: &[&str]) -> Result<String> {
    let mut command = tokio::process::Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PROBE_TIMEOUT, command.output())
        .await
        .map_err(|_| not_understood(binary, argument, "no answer in time".into()))?
        .map_err(|source| Error::Binary { binary: binary.into(), source })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(not_understood(binary, argument, format!("{}: {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn not_understood(binary: &Path, argument: &'static str, problem: String) -> Error {
    Error::Probe { binary: binary.into(), argument, problem }
}

/// `QEMU emulator version 7.2.22 (Debian …)` -> `7.2.22`
fn parse_version(text: &str) -> Option<String> {
    let word = text.split("version ").nth(1)?.split_whitespace().next()?;
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.to_owned())
}

/// The newest of `pc-q35-X.Y`: `q35` alone means another machine in each version.
fn newest_q35(text: &str) -> Option<String> {
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let versions = names.filter_map(|name| {
        let numbers = name.strip_prefix("pc-q35-")?.split('.').map(|part| part.parse::<u32>().ok());
        Some((numbers.collect::<Option<Vec<u32>>>()?, name))
    });
    versions.max().map(|(_, name)| name.to_owned())
}

/// A /dev/kvm that opens is not enough: without the CPU's extension it may still not run a Linux guest.
fn use_kvm(accel: Accel, cpuinfo: &str, kvm_opens: bool) -> Result<bool> {
    let flags = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == "flags"));
    let extension = flags.is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
    match (accel, extension, kvm_opens) {
        (Accel::Tcg, _, _) => Ok(false),
        (Accel::Auto, _, _) => Ok(extension && kvm_opens),
        (Accel::Kvm, true, true) => Ok(true),
        (Accel::Kvm, false, _) => Err(Error::NoKvm { problem: "the CPU shows neither vmx nor svm" }),
        (Accel::Kvm, true, false) => Err(Error::NoKvm { problem: "/dev/kvm does not open" }),
    }
}

fn cpu_name(cpuinfo: &str) -> &str {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split(':').nth(1)).map_or("unknown", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_the_cpu_and_the_device() {
        let with = "model name\t: A CPU\nflags\t\t: fpu svm sse\n";
        let without = "model name\t: svm vmx\nflags\t\t: fpu svmx sse\n";
        let vmx = "flags\t\t: vmx\n";
        assert!(use_kvm(Accel::Auto, with, true).unwrap());
        assert!(use_kvm(Accel::Auto, vmx, true).unwrap());
        assert!(!use_kvm(Accel::Auto, with, false).unwrap());
        assert!(!use_kvm(Accel::Auto, without, true).unwrap());
        assert!(!use_kvm(Accel::Auto, "", true).unwrap());
        assert!(!use_kvm(Accel::Tcg, with, true).unwrap());
        assert!(use_kvm(Accel::Kvm, with, true).unwrap());
        assert!(matches!(use_kvm(Accel::Kvm, without, true), Err(Error::NoKvm { .. })));
        assert!(matches!(use_kvm(Accel::Kvm, with, false), Err(Error::NoKvm { .. })));
        assert_eq!(cpu_name(with), "A CPU");
    }

    #[test]
    fn the_newest_machine_is_newest_by_number() {
        let text = "Supported machines are:\nq35    (alias of pc-q35-10.0)\npc-q35-9.2  Standard\npc-q35-10.0  Standard\n\
                    pc-q35-4.0.1  Standard\npc-q35-rhel  no\nmicrovm  x\n";
        assert_eq!(newest_q35(text).as_deref(), Some("pc-q35-10.0"));
        assert_eq!(newest_q35("none"), None);
    }

    #[test]
    fn the_version_is_without_its_package() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright\n";
        assert_eq!(parse_version(text).as_deref(), Some("7.2.22"));
        assert_eq!(parse_version("QEMU emulator version 10.0.2\n").as_deref(), Some("10.0.2"));
        assert_eq!(parse_version("hello version of"), None);
    }
}
