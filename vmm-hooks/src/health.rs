//! Whether a guest on probation is well: what it is asked, and for how long.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a guest has to answer before it may take another's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The question.
    pub probe: Probe,
    /// How long the answer may take, in seconds, from the moment at which the guest runs.
    pub timeout_s: u32,
}

/// The question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A program on the host, of the operator's directory, and its arguments: it ends with 0 if the guest is well. It is
    /// run as those of [`Commands`](crate::Commands) are, with `health` as `FORM_COMMAND`.
    Command(Vec<String>),
    /// Somebody in the guest takes connections at this TCP port.
    TcpPort(u16),
    /// The guest's agent answers `guest-ping` (QEMU Guest Agent Protocol Reference).
    AgentPing,
}

impl Health {
    /// How long the answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s.into())
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Command(words) => write!(f, "command `{}`", words.join(" ")),
            Probe::TcpPort(port) => write!(f, "TCP port {port}"),
            Probe::AgentPing => f.write_str("guest agent ping"),
        }
    }
}
