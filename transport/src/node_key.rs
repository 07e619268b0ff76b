//! A node's private key and its file.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use zeroize::Zeroizing;

use crate::{Error, NodeId, Result, limits};

/// An Ed25519 private key. On disk: PKCS#8 in DER, mode 0600.
pub struct NodeKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: Ed25519KeyPair,
}

impl NodeKey {
    /// A new random key.
    pub fn generate() -> Result<Self> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| Error::NoRandomness)?;
        Self::from_pkcs8(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Reads a key file: PKCS#8 v2 as [`save`](Self::save) writes it, or v1 as `openssl genpkey` does with `-outform DER`.
    ///
    /// A file that others may read is refused.
    pub fn load(path: &Path) -> Result<Self> {
        let failed = |source| Error::KeyFile { operation: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::KeyExposed { path: path.to_owned(), mode });
        }
        if metadata.len() > limits::KEY_FILE_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "node key file",
                len_bytes: metadata.len(),
                max_bytes: limits::KEY_FILE_BYTES_MAX,
            });
        }
        let mut pkcs8 = Zeroizing::new(Vec::with_capacity(limits::KEY_FILE_BYTES_MAX as usize));
        file.take(limits::KEY_FILE_BYTES_MAX).read_to_end(&mut pkcs8).map_err(failed)?;
        Self::from_pkcs8(pkcs8)
    }

    /// Writes a new key file, durably. An existing file is never overwritten: a lost key is a lost node.
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&self.pkcs8)?;
            file.sync_all()?;
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| Error::KeyFile { operation: "write", path: path.to_owned(), source })
    }

    /// The public key.
    pub fn id(&self) -> NodeId {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        NodeId::from_bytes(bytes)
    }

    /// Signs `message` (Ed25519, deterministic). The message has to begin with a tag of its purpose.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }

    /// A secret that depends on this key and `purpose` alone, so it outlives the process.
    pub(crate) fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(purpose, &self.pkcs8))
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
            .map_err(|e| Error::KeyRejected { reason: e.to_string() })?;
        Ok(Self { pkcs8, pair })
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(of {})", self.id())
    }
}
