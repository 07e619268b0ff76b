//! A QEMU that fails on request: a script in its place, which looks for files beside it and then becomes QEMU.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Context, Error, Result, Scene};

const SCRIPT: &str = r#"#!/bin/sh
here=${0%/*}
case " $* " in
*" --version "*)
  if [ -e "$here/version" ]; then echo "QEMU emulator version $(cat "$here/version")"; exit 0; fi ;;
*" -incoming "*)
  echo "$$" >> "$here/restores"
  if [ -e "$here/damage" ]; then
    for file in "$(cat "$here/damage")"/staging/*/*/device.img; do
      truncate -s 4096 "$file" && echo "$file" >> "$here/damaged"
    done
  fi
  if [ -e "$here/hold" ]; then
    : > "$here/held"
    while [ -e "$here/hold" ]; do sleep 0.05; done
  fi ;;
esac
exec qemu-system-x86_64 "$@"
"#;

/// The script and its switches.
#[derive(Debug)]
pub struct FaultyQemu {
    dir: PathBuf,
}

impl FaultyQemu {
    /// Works as QEMU does.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(scene: &Scene, name: &str) -> Result<Self> {
        let dir = scene.dir().join(name);
        let script = dir.join("qemu");
        std::fs::create_dir(&dir).context(|| format!("make {}", dir.display()))?;
        std::fs::write(&script, SCRIPT).context(|| format!("write {}", script.display()))?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&script, executable).context(|| format!("make {} a program", script.display()))?;
        Ok(Self { dir })
    }

    /// What a node is to be given as `--qemu`.
    pub fn program(&self) -> PathBuf {
        self.dir.join("qemu")
    }

    /// It says that it is this version.
    ///
    /// # Errors
    /// The file system's.
    pub fn pretend_version(&self, version: &str) -> Result<()> {
        self.switch("version", version)
    }

    /// The device states that a node has staged are cut short just before QEMU reads one.
    ///
    /// # Errors
    /// The file system's.
    pub fn damage_device_state(&self, data_dir: &Path) -> Result<()> {
        self.switch("damage", &data_dir.to_string_lossy())
    }

    /// The files that were damaged.
    pub fn damaged(&self) -> Vec<PathBuf> {
        let list = std::fs::read_to_string(self.dir.join("damaged")).unwrap_or_default();
        list.lines().map(PathBuf::from).collect()
    }

    /// How often it was started to restore something.
    pub fn restores(&self) -> usize {
        std::fs::read_to_string(self.dir.join("restores")).unwrap_or_default().lines().count()
    }

    /// A restore waits until [`FaultyQemu::behave`].
    ///
    /// # Errors
    /// The file system's.
    pub fn hold_restore(&self) -> Result<()> {
        self.switch("hold", "")
    }

    /// Waits until a restore is being held.
    ///
    /// # Errors
    /// None came.
    pub fn wait_until_held(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.dir.join("held").exists() {
            if Instant::now() > until {
                return Err(Error::new("no restore began"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// All switches off.
    ///
    /// # Errors
    /// The file system's.
    pub fn behave(&self) -> Result<()> {
        for name in ["version", "damage", "hold", "held"] {
            match std::fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("switch {name} off"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn switch(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.dir.join(name), text).context(|| format!("switch {name} on"))
    }
}
