//! The files that a spec names, as they are on this node.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::InstanceSpec;
use super::parse::convert;
use crate::error::{ApiError, ErrorCode};

impl InstanceSpec {
    /// Checks that kernel and initramfs are here: every node that hosts an instance needs them.
    ///
    /// # Errors
    /// `missing_dependency`, naming the file.
    pub fn check_boot_files(&self) -> Result<(), ApiError> {
        open("kernel", &self.kernel)?;
        self.initrd.as_deref().map_or(Ok(()), |initrd| open("initrd", initrd).map(drop))
    }

    /// Checks that the disks' templates are here and raw: the node that makes the first instance copies them.
    ///
    /// # Errors
    /// `missing_dependency` for a missing file, `unsupported` for one that is not raw, `bad_request` for an empty one.
    pub fn check_disk_templates(&self) -> Result<(), ApiError> {
        for disk in &self.disks {
            let what = format!("image of disk {}", disk.name);
            let (mut file, len_bytes) = open(&what, &disk.template)?;
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
        }
        Ok(())
    }
}

/// Opens a regular file and says how long it is.
fn open(what: &str, path: &Path) -> Result<(File, u64), ApiError> {
    // Looked at before it is opened: opening a FIFO would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|e| missing(what, path, e))?;
    if !metadata.is_file() {
        return Err(ApiError::new(ErrorCode::Unsupported, format!("the {what} {} is not a file", path.display()))
            .remedy("give a regular file: host devices can't be handed to the guest"));
    }
    Ok((File::open(path).map_err(|e| missing(what, path, e))?, metadata.len()))
}

fn missing(what: &str, path: &Path, cause: std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::MissingDependency, format!("the {what} {} can't be read on this node", path.display()))
        .cause(cause)
        .remedy("put the file there, or name another one in the spec")
}
