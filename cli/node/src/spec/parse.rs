//! From the text to the spec, refusing with a word what this version can't do.

use std::collections::BTreeSet;
use std::path::Path;

use super::limits::{
    CMDLINE_BYTES_MAX, DISK_NAME_BYTES_MAX, DISKS_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, MEMORY_UNIT_BYTES,
    PATH_BYTES_MAX, SPEC_BYTES_MAX,
};
use super::size;
use super::text::{DiskText, SpecText};
use super::{DiskSpec, FilesSpec, InstanceSpec, QemuSpec, VmmSpec, commands, health};
use crate::error::{ApiError, ErrorCode};

/// Names of artifacts that are not disks.
const NOT_DISKS: [&str; 2] = ["memory", "device"];

impl InstanceSpec {
    /// Reads a spec. The files that it names are not looked at: see [`InstanceSpec::check_boot_files`] and
    /// [`InstanceSpec::check_disk_templates`].
    ///
    /// # Errors
    /// `bad_request` for what is not a spec, `unsupported` for what this version can't do; both name the field.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text.len() > SPEC_BYTES_MAX {
            return Err(bad(format!("the spec is {} bytes long, the limit is {SPEC_BYTES_MAX}", text.len())));
        }
        let spec: SpecText = toml::from_str(text).map_err(|e| {
            bad("the spec can't be read")
                .cause(e.to_string().trim_end())
                .remedy("docs/instance-spec.md has every field")
        })?;
        if spec.passthrough.is_some() {
            return Err(unsupported("a host device can't be handed to the guest: its state can't be copied")
                .remedy("remove `passthrough`"));
        }
        let mut spec = spec;
        let disks = std::mem::take(&mut spec.disk).into_iter().map(disk).collect::<Result<_, _>>()?;
        let health = spec.health.take().map(health::health).transpose()?;
        let vmm = match spec.vmm.as_str() {
            "qemu" => VmmSpec::Qemu(qemu(spec)?),
            "files" => VmmSpec::Files(files(spec)?),
            text @ ("cloud-hypervisor" | "firecracker") => {
                return Err(
                    unsupported(format!("vmm = {text:?} is not supported yet")).remedy("give \"qemu\" or \"files\"")
                );
            }
            text => {
                return Err(bad(format!("vmm = {text:?} is no hypervisor that this program knows"))
                    .remedy("give \"qemu\" or \"files\""));
            }
        };
        let spec = Self { vmm, disks, health };
        spec.validate()?;
        Ok(spec)
    }

    /// Checks all values, for a spec that was parsed just now as for one that another node sends.
    ///
    /// # Errors
    /// As those of [`InstanceSpec::parse`].
    pub fn validate(&self) -> Result<(), ApiError> {
        if self.disks.len() > DISKS_MAX {
            return Err(bad(format!("the spec has {} disks, the limit is {DISKS_MAX}", self.disks.len())));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = self.disks.iter().find(|d| !names.insert(d.name.as_str())) {
            return Err(bad(format!("two disks are named {:?}", twice.name)).remedy("give each disk a name of its own"));
        }
        for disk in &self.disks {
            disk_name(&disk.name)?;
            path(&format!("path of disk {}", disk.name), &disk.template)?;
        }
        if let Some(health) = &self.health {
            health::check(health, &self.vmm)?;
        }
        match &self.vmm {
            VmmSpec::Qemu(spec) => {
                if spec.vcpus != 1 {
                    let message = format!("{} virtual CPUs are not supported yet", spec.vcpus);
                    return Err(unsupported(message).remedy("give vcpus = 1"));
                }
                memory(spec.memory_bytes)?;
                path("kernel", &spec.kernel)?;
                spec.initrd.as_deref().map_or(Ok(()), |initrd| path("initrd", initrd))?;
                cmdline(&spec.cmdline)?;
                spec.mac.as_deref().map_or(Ok(()), mac)
            }
            VmmSpec::Files(spec) => {
                if self.disks.is_empty() && spec.memory_template.is_none() {
                    return Err(bad("the spec names no file").remedy("give at least one [[disk]]"));
                }
                spec.memory_template.as_deref().map_or(Ok(()), |memory| path("memory_path", memory))?;
                commands::check(&spec.commands)
            }
        }
    }
}

fn qemu(spec: SpecText) -> Result<QemuSpec, ApiError> {
    refuse_fields("qemu", &[("memory_path", spec.memory_path.is_some()), ("commands", spec.commands.is_some())])?;
    let missing = |field: &str| bad(format!("{field} is missing")).remedy("docs/instance-spec.md has every field");
    let memory = spec.memory.ok_or_else(|| missing("memory"))?;
    Ok(QemuSpec {
        memory_bytes: size::parse(&memory).map_err(|why| bad(format!("memory: {why}")))?,
        vcpus: spec.vcpus.unwrap_or(1),
        kernel: spec.kernel.ok_or_else(|| missing("kernel"))?,
        initrd: spec.initrd,
        cmdline: spec.cmdline.unwrap_or_default(),
        way_back: spec.way_back.unwrap_or_default(),
        mac: spec.network.and_then(|network| network.mac).map(|mac| mac.to_ascii_lowercase()),
    })
}

fn files(spec: SpecText) -> Result<FilesSpec, ApiError> {
    refuse_fields(
        "files",
        &[
            ("memory", spec.memory.is_some()),
            ("vcpus", spec.vcpus.is_some()),
            ("kernel", spec.kernel.is_some()),
            ("initrd", spec.initrd.is_some()),
            ("cmdline", spec.cmdline.is_some()),
            ("way_back", spec.way_back.is_some()),
            ("network", spec.network.is_some()),
        ],
    )?;
    let commands = commands::commands(spec.commands.unwrap_or_default());
    Ok(FilesSpec { memory_template: spec.memory_path, commands })
}

/// A field that this hypervisor has no use for is a mistake.
fn refuse_fields(vmm: &str, fields: &[(&str, bool)]) -> Result<(), ApiError> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(bad(format!("{field} has no meaning with vmm = {vmm:?}")).remedy("leave it out")),
        None => Ok(()),
    }
}

fn memory(bytes: u64) -> Result<(), ApiError> {
    let mib = format!("{}MiB", bytes >> 20);
    if bytes > MEMORY_BYTES_MAX {
        return Err(unsupported(format!("memory = {mib:?} is more than is supported"))
            .remedy(format!("give at most \"{}MiB\"", MEMORY_BYTES_MAX >> 20)));
    }
    if bytes < MEMORY_BYTES_MIN {
        let least = MEMORY_BYTES_MIN >> 20;
        return Err(bad(format!("memory = {mib:?} is too little")).remedy(format!("give at least \"{least}MiB\"")));
    }
    if !bytes.is_multiple_of(MEMORY_UNIT_BYTES) {
        return Err(
            bad(format!("{bytes} bytes of memory are not a whole number of MiB")).remedy("give memory in MiB or GiB")
        );
    }
    Ok(())
}

fn cmdline(text: &str) -> Result<(), ApiError> {
    if text.len() > CMDLINE_BYTES_MAX {
        return Err(bad(format!("cmdline is {} bytes long, the limit is {CMDLINE_BYTES_MAX}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(bad("cmdline has a control character in it").remedy("write it on one line"));
    }
    Ok(())
}

fn path(field: &str, path: &Path) -> Result<(), ApiError> {
    if !path.is_absolute() {
        return Err(bad(format!("{field} = {path:?} is not an absolute path"))
            .cause("the node reads the file, wherever it was started")
            .remedy("give the path from / on"));
    }
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(bad(format!("{field} is a path of more than {PATH_BYTES_MAX} bytes")));
    }
    if path.to_string_lossy().chars().any(char::is_control) {
        return Err(bad(format!("{field} has a control character in it")));
    }
    Ok(())
}

fn disk_name(name: &str) -> Result<(), ApiError> {
    let is_name = name.len() <= DISK_NAME_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if is_name && !NOT_DISKS.contains(&name) {
        return Ok(());
    }
    Err(bad(format!("{name:?} can't be the name of a disk")).remedy(format!(
        "give a letter, then letters, digits and '-' (a-z, at most {DISK_NAME_BYTES_MAX}); memory and device are taken"
    )))
}

fn disk(text: DiskText) -> Result<DiskSpec, ApiError> {
    let DiskText { name, path: template, format, commit } = text;
    match format.as_str() {
        "raw" => {}
        "qcow2" | "qcow" | "vmdk" | "vdi" | "vhdx" | "vpc" | "qed" => {
            return Err(unsupported(format!("disk {name} has format = {format:?}, which is not supported yet"))
                .remedy(convert(&template, &format)));
        }
        _ => {
            return Err(bad(format!("disk {name}: {format:?} is no format that this program knows"))
                .remedy("give format = \"raw\""));
        }
    }
    match commit.as_str() {
        "committed" => {}
        "kept" => {
            return Err(unsupported(format!("disk {name} has commit = \"kept\", which is not supported yet"))
                .cause("memory that comes with a commit would not match a disk that stayed")
                .remedy("give commit = \"committed\""));
        }
        _ => {
            return Err(
                bad(format!("disk {name}: commit = {commit:?} is unknown")).remedy("give commit = \"committed\"")
            );
        }
    }
    Ok(DiskSpec { name, template })
}

/// How to make a raw image from another.
pub(super) fn convert(template: &Path, format: &str) -> String {
    let from = template.display();
    format!("make a raw image of it: qemu-img convert -f {format} -O raw {from} {from}.raw")
}

fn mac(text: &str) -> Result<(), ApiError> {
    let mut bytes = [0_u8; 6];
    let pairs: Vec<&str> = text.split(':').collect();
    let read = pairs.len() == bytes.len()
        && pairs.iter().zip(&mut bytes).all(|(pair, byte)| {
            let parsed = u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2 && !pair.starts_with('+'));
            parsed.map(|b| *byte = b).is_some()
        });
    // The lowest bit of the first byte marks a group of cards.
    if !read || bytes[0] & 1 == 1 || bytes == [0; 6] {
        return Err(bad(format!("network.mac = {text:?} is not the address of a card"))
            .remedy("give six pairs of hex digits, as in \"52:54:00:aa:bb:01\""));
    }
    Ok(())
}

pub(super) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

fn unsupported(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Unsupported, message)
}
