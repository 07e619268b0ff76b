//! The commit record: what a node signs, and what history is made of.

use borsh::{BorshDeserialize, BorshSerialize};
use form_delta::{Hash, limits::IMAGE_BYTES_MAX};

use crate::{
    Error, Result,
    limits::{
        ARTIFACT_NAME_BYTES_MAX, ARTIFACTS_MAX, COMMIT_BYTES_MAX, DESCRIPTION_BYTES_MAX, ID_BYTES_MAX,
        REQUEST_MESSAGE_BYTES_MAX, VMM_BYTES_MAX,
    },
    wire,
};

/// The version of [`Commit`]'s encoding.
pub const COMMIT_VERSION: u16 = 1;

const WHAT: &str = "commit";
/// Ends in a byte that no text has, so that no other tag begins with it.
const ID_TAG: &[u8] = b"form-commit-v1\0";

/// A state of a whole machine, and who asked for it.
///
/// There is one encoding of it (borsh, fields in order), so there is one id.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commit {
    /// [`COMMIT_VERSION`].
    pub version: u16,
    /// Id of the cluster.
    pub cluster: String,
    /// Id of the commit that this one replaces as head; none for a cluster's first.
    pub parent: Option<[u8; 32]>,
    /// The machine's images, sorted by name.
    pub artifacts: Vec<Artifact>,
    /// Address of the account that signed the request.
    pub author: [u8; 20],
    /// The author's words.
    pub description: String,
    /// Unix time at the source, in milliseconds.
    pub time_ms: u64,
    /// The message of the signed request. Not its signature: two signatures over one intent make one commit.
    pub request_message: Vec<u8>,
    /// Id of the instance that was captured.
    pub source_instance: String,
    /// Host facts that a target compares with its own, as canonical text.
    pub vmm: String,
}

/// One image of a commit.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Artifact {
    /// Its name in the machine: `[a-z0-9-]`, not empty.
    pub name: String,
    /// What it is.
    pub kind: ArtifactKind,
    /// Length of the image in bytes.
    pub image_len_bytes: u64,
    /// BLAKE3 of the image's manifest.
    #[borsh(serialize_with = "write_hash", deserialize_with = "read_hash")]
    pub root: Hash,
}

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum ArtifactKind {
    /// Guest RAM.
    Memory = 0,
    /// Everything else that the VMM saves: CPUs, devices.
    DeviceState = 1,
    /// A disk.
    Disk = 2,
}

impl Commit {
    /// BLAKE3 of `form-commit-v1`, a zero byte, and [`encode`](Self::encode).
    pub fn id(&self) -> [u8; 32] {
        *blake3::Hasher::new().update(ID_TAG).update(&self.encode()).finalize().as_bytes()
    }

    /// The one encoding.
    pub fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("a Vec takes all bytes, and no field has 4 GiB")
    }

    /// The reverse of [`encode`](Self::encode). Checks the length first and [`validate`](Self::validate) last.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        wire::block_len(WHAT, bytes.len(), COMMIT_BYTES_MAX)?;
        let commit = Self::try_from_slice(bytes).map_err(|e| Error::malformed(WHAT, e))?;
        commit.validate()?;
        Ok(commit)
    }

    /// Checks all that can be checked without knowing anything else: version, lengths, names, and that the
    /// artifacts are sorted, unique and make a machine.
    pub fn validate(&self) -> Result<()> {
        if self.version != COMMIT_VERSION {
            let reason = format!("version {}, and only {COMMIT_VERSION} is known", self.version);
            return Err(Error::malformed(WHAT, reason));
        }
        id("cluster id", &self.cluster)?;
        id("instance id", &self.source_instance)?;
        length("description", self.description.len(), DESCRIPTION_BYTES_MAX)?;
        let request_len = self.request_message.len();
        length("request message", request_len, REQUEST_MESSAGE_BYTES_MAX)?;
        length("host facts", self.vmm.len(), VMM_BYTES_MAX)?;
        length("list of artifacts", self.artifacts.len(), ARTIFACTS_MAX)?;
        self.artifacts.iter().try_for_each(Artifact::validate)?;
        if !self.artifacts.is_sorted_by(|a, b| a.name < b.name) {
            let reason = "its artifacts are not sorted by name, or a name comes twice";
            return Err(Error::malformed(WHAT, reason));
        }
        let count = |kind| self.artifacts.iter().filter(|a| a.kind == kind).count();
        match (count(ArtifactKind::Memory), count(ArtifactKind::DeviceState)) {
            (1, 0 | 1) => Ok(()),
            (0, 0) if !self.artifacts.is_empty() => Ok(()),
            (memory, state) => {
                let reason = format!(
                    "it has {memory} memory and {state} device state images; a machine has one memory at most, and device state only with it"
                );
                Err(Error::malformed(WHAT, reason))
            }
        }
    }
}

impl Artifact {
    fn validate(&self) -> Result<()> {
        const WHAT: &str = "artifact name";
        length(WHAT, self.name.len(), ARTIFACT_NAME_BYTES_MAX)?;
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.is_empty() || !self.name.bytes().all(allowed) {
            return Err(Error::malformed(WHAT, "it has to be of a-z, 0-9 and -"));
        }
        if self.image_len_bytes > IMAGE_BYTES_MAX {
            return Err(Error::TooLarge { what: "image", len_bytes: self.image_len_bytes, max_bytes: IMAGE_BYTES_MAX });
        }
        Ok(())
    }
}

fn id(what: &'static str, id: &str) -> Result<()> {
    length(what, id.len(), ID_BYTES_MAX)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if id.is_empty() || !id.bytes().all(allowed) {
        return Err(Error::malformed(what, "it has to be of letters, digits and -"));
    }
    Ok(())
}

fn length(what: &'static str, len: usize, max: usize) -> Result<()> {
    if len > max {
        return Err(Error::TooLarge { what, len_bytes: len as u64, max_bytes: max as u64 });
    }
    Ok(())
}

fn write_hash<W: borsh::io::Write>(hash: &Hash, writer: &mut W) -> borsh::io::Result<()> {
    writer.write_all(hash.as_bytes())
}

fn read_hash<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Hash> {
    <[u8; 32]>::deserialize_reader(reader).map(Hash::from_bytes)
}
