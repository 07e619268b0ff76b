//! A node's own settings: one TOML file in its data directory, written once by `form node init`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{ApiError, ErrorCode};

/// `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    /// URL of the state store, as in `sqlite:/var/lib/form/state.db`.
    pub(crate) store: String,
    /// Which installation the store was when this node was enrolled. Another one is refused: it would be another
    /// cluster's truth.
    pub(crate) installation_id: String,
    /// Where the HTTP API listens.
    pub(crate) api: SocketAddr,
    /// Where other nodes reach this one (UDP).
    pub(crate) quic: SocketAddr,
    /// The QEMU binary; looked up in PATH when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) qemu: Option<PathBuf>,
}

impl NodeConfig {
    /// # Errors
    /// The file is missing or is not a node's settings.
    pub(crate) fn load(path: &Path) -> Result<Self, ApiError> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            ApiError::new(ErrorCode::NotFound, format!("{} can't be read", path.display()))
                .cause(e)
                .remedy("make the node first: form node init --data DIR --store sqlite:PATH")
        })?;
        toml::from_str(&text).map_err(|e| {
            ApiError::new(ErrorCode::BadRequest, format!("{} is not a node's settings", path.display()))
                .cause(e.message())
                .remedy("mend the line, or make the node anew in an empty directory")
        })
    }

    /// Writes it durably, 0600.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn save(&self, path: &Path) -> Result<(), ApiError> {
        let text = toml::to_string_pretty(self).map_err(|e| ApiError::internal("write the settings", e))?;
        crate::engine::write_durably(path, text.as_bytes()).map_err(|e| ApiError::io("write", path, &e))
    }
}
