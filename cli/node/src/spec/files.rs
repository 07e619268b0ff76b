//! The files that a spec names, as they are on this node.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::parse::convert;
use super::{InstanceSpec, VmmSpec};
use crate::error::{ApiError, ErrorCode};

impl InstanceSpec {
    /// Checks that kernel and initramfs are here: every node that hosts an instance needs them. No file may be in one of
    /// the directories `private`: whoever may make an instance could read the node's own files in its guest.
    ///
    /// # Errors
    /// `missing_dependency` or `not_allowed`, naming the file.
    pub fn check_boot_files(&self, private: &[PathBuf]) -> Result<(), ApiError> {
        let VmmSpec::Qemu(qemu) = &self.vmm else { return Ok(()) };
        open("kernel", &qemu.kernel, private)?;
        qemu.initrd.as_deref().map_or(Ok(()), |initrd| open("initrd", initrd, private).map(drop))
    }

    /// The file that is the memory of a machine of files.
    pub fn memory_template(&self) -> Option<&Path> {
        match &self.vmm {
            VmmSpec::Qemu(_) => None,
            VmmSpec::Files(files) => files.memory_template.as_deref(),
        }
    }

    /// Checks that the disks' templates are here and raw, and not in one of the directories `private`; the files that
    /// were looked at, in the order of the disks, the memory file last: the node that makes the first instance copies them.
    ///
    /// # Errors
    /// `missing_dependency` for a missing file, `not_allowed` for one of the node's own, `unsupported` for one that is
    /// not raw, `bad_request` for an empty one.
    pub fn check_disk_templates(&self, private: &[PathBuf]) -> Result<Vec<File>, ApiError> {
        let mut files = Vec::new();
        for disk in &self.disks {
            let what = format!("image of disk {}", disk.name);
            let (mut file, len_bytes) = open(&what, &disk.template, private)?;
            let mut start = Vec::new();
            let read = file.by_ref().take(8).read_to_end(&mut start);
            read.map_err(|e| missing(&what, &disk.template, e))?;
            let format = match start.as_slice() {
                [b'Q', b'F', b'I', 0xfb, ..] => Some("qcow2"),
                [b'K', b'D', b'M', b'V', ..] => Some("vmdk"),
                b"vhdxfile" => Some("vhdx"),
                _ => None,
            };
            let path = disk.template.display();
            if let Some(format) = format {
                return Err(ApiError::new(
                    ErrorCode::Unsupported,
                    format!("{path} is a {format} image, not a raw one"),
                )
                .remedy(convert(&disk.template, format)));
            }
            if len_bytes == 0 || len_bytes % 512 != 0 {
                return Err(ApiError::new(ErrorCode::BadRequest, format!("{path} is {len_bytes} bytes long"))
                    .cause("a raw disk is a whole number of sectors of 512 bytes")
                    .remedy("give a disk image, or make the file longer with truncate"));
            }
            files.push(file);
        }
        if let Some(memory) = self.memory_template() {
            let (file, len_bytes) = open("memory file", memory, private)?;
            if len_bytes == 0 {
                return Err(ApiError::new(ErrorCode::BadRequest, format!("{} is empty", memory.display())));
            }
            files.push(file);
        }
        Ok(files)
    }
}

/// Where an open file can be opened again by a path, whatever has become of its name since.
pub(crate) fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Opens a regular file and says how long it is.
fn open(what: &str, path: &Path, private: &[PathBuf]) -> Result<(File, u64), ApiError> {
    // Looked at before it is opened: opening a FIFO would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|e| missing(what, path, e))?;
    if !metadata.is_file() {
        return Err(ApiError::new(ErrorCode::Unsupported, format!("the {what} {} is not a file", path.display()))
            .remedy("give a regular file: host devices can't be handed to the guest"));
    }
    let file = File::open(path).map_err(|e| missing(what, path, e))?;
    let real = std::fs::read_link(path_of(&file)).map_err(|e| missing(what, path, e))?;
    if private.iter().any(|dir| real.starts_with(dir)) {
        return Err(ApiError::new(ErrorCode::NotAllowed, format!("the {what} {} is the node's own", path.display()))
            .cause("a guest could read there what is of other clusters")
            .remedy("keep the files of guests outside of the directories of nodes and of the state store"));
    }
    Ok((file, metadata.len()))
}

fn missing(what: &str, path: &Path, cause: std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::MissingDependency, format!("the {what} {} can't be read on this node", path.display()))
        .cause(cause)
        .remedy("put the file there, or name another one in the spec")
}
