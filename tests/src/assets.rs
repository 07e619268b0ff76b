//! What a run needs from the build: the program and the guest image.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Absolute paths of files that exist.
#[derive(Clone, Debug)]
pub struct Assets {
    /// The `form` program.
    pub form: PathBuf,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its disk, 2 GiB raw.
    pub disk: PathBuf,
    /// The memory that a guest is to have.
    pub memory_mib: u64,
}

/// Enough for everything that tests do in it.
const MEMORY_MIB: u64 = 512;

impl Assets {
    /// The program is beside the running one, the guest in the repository's `target`.
    ///
    /// # Errors
    /// What is missing, and what makes it.
    pub fn find() -> Result<Self> {
        let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest");
        Ok(Self {
            form: Self::find_form()?,
            kernel: found(guest.join("vmlinuz"), "make guest")?,
            initrd: found(guest.join("initrd.gz"), "make guest")?,
            disk: found(guest.join("root.raw"), "make guest")?,
            memory_mib: MEMORY_MIB,
        })
    }

    /// For machines that are only files: the program alone.
    ///
    /// # Errors
    /// As those of [`Assets::find`].
    pub fn without_guest() -> Result<Self> {
        let none = PathBuf::new;
        Ok(Self { form: Self::find_form()?, kernel: none(), initrd: none(), disk: none(), memory_mib: MEMORY_MIB })
    }

    fn find_form() -> Result<PathBuf> {
        let exe = std::env::current_exe().map_err(|e| Error::new(format!("this program can't find itself: {e}")))?;
        // <target>/<profile>/form-demo, or <target>/<profile>/deps/<test>
        let mut profile = exe.parent().unwrap_or(Path::new("/")).to_owned();
        if profile.ends_with("deps") {
            profile.pop();
        }
        found(profile.join("form"), "cargo build -p form (or `make test`, which does it all)")
    }

    /// An instance spec for this guest.
    pub fn spec(&self) -> String {
        format!(
            "vmm = \"qemu\"\nmemory = \"{}MiB\"\nkernel = {:?}\ninitrd = {:?}\n\
             cmdline = \"console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on\"\n\n\
             [[disk]]\nname = \"root\"\npath = {:?}\n",
            self.memory_mib, self.kernel, self.initrd, self.disk
        )
    }
}

fn found(path: PathBuf, remedy: &str) -> Result<PathBuf> {
    path.canonicalize().map_err(|_| Error::new(format!("{} is missing; run: {remedy}", path.display())))
}
