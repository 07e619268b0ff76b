//! Where a delta is read from: a file, or stdin.

use std::fs::File;
use std::io;
use std::path::Path;

use form_node::ApiError;
use rustix::fs::{Mode, OFlags, open};

use super::failure;
use super::output_file::directory;

/// What stands for stdin and stdout.
pub(super) fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opens a delta. What comes from stdin or another pipe goes into a file without a name beside `near` first: its index stands at its end.
pub(super) fn open_input(path: &Path, near: &Path) -> Result<File, ApiError> {
    let mut stream: Box<dyn io::Read> = if is_stream(path) {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.is_file(), file)));
        match opened.map_err(|error| failure::io("read", path, &error))? {
            (true, file) => return Ok(file),
            (false, pipe) => Box::new(pipe),
        }
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let spooled = open(directory(near), flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from).and_then(|file| {
        let mut file = File::from(file);
        io::copy(&mut stream, &mut file)?;
        Ok(file)
    });
    spooled.map_err(|error| {
        let failed = failure::io("read", path, &error);
        if failed.remedy.is_some() { failed } else { failed.remedy("save the delta to a file, and apply that") }
    })
}
