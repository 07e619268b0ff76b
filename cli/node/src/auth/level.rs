//! How much an account may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::address::Address;
use crate::error::{ApiError, ErrorCode};

/// Levels of right on an instance; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// See it.
    ReadOnly,
    /// Use its console, start and stop it.
    Operator,
    /// Commit it, bring instances into its cluster.
    Manager,
    /// Give rights, delete it.
    Owner,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::Operator => "operator",
            Self::Manager => "manager",
            Self::Owner => "owner",
        })
    }
}

impl FromStr for Level {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text.to_ascii_lowercase().as_str() {
            "read-only" | "readonly" => Ok(Self::ReadOnly),
            "operator" => Ok(Self::Operator),
            "manager" => Ok(Self::Manager),
            "owner" => Ok(Self::Owner),
            _ => Err(ApiError::new(ErrorCode::BadRequest, format!("\"{text}\" is not a level"))
                .remedy("give read-only, operator, manager or owner")),
        }
    }
}

/// The level that `signer` holds: the owner's by ownership, anyone else's by the highest grant in force.
/// `grants` are those of the instance, revoked ones left out; a grant of [`Level::Owner`] counts as Manager,
/// since the owner is the one whose address was pinned when the instance was made.
pub fn held_level(
    owner: Address,
    signer: Address,
    grants: impl IntoIterator<Item = (Address, Level)>,
) -> Option<Level> {
    if signer == owner {
        return Some(Level::Owner);
    }
    grants.into_iter().filter(|(address, _)| *address == signer).map(|(_, level)| level.min(Level::Manager)).max()
}
