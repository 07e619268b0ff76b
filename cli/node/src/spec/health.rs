//! What a new VM is asked before it takes the old one's place.

use form_vmm_hooks::{Health, Probe};

use super::limits::{HEALTH_TIMEOUT_S, HEALTH_TIMEOUT_S_MAX};
use super::parse::bad;
use super::text::HealthText;
use super::{VmmSpec, commands};
use crate::error::ApiError;

const ONE_QUESTION: &str = "give exactly one of health.command, health.tcp_port and health.agent_ping";

pub(super) fn health(text: HealthText) -> Result<Health, ApiError> {
    let HealthText { command, tcp_port, agent_ping, timeout_s } = text;
    if agent_ping == Some(false) {
        return Err(bad("health.agent_ping = false asks nothing").remedy("give true, or leave it out"));
    }
    let probe = match (command, tcp_port, agent_ping) {
        (Some(command), None, None) => Probe::Command(command),
        (None, Some(port), None) => Probe::TcpPort(u16::try_from(port).map_err(|_| no_port(port))?),
        (None, None, Some(_)) => Probe::AgentPing,
        (None, None, None) => return Err(bad("[health] asks nothing").remedy(ONE_QUESTION)),
        _ => return Err(bad("[health] asks more than one question").remedy(ONE_QUESTION)),
    };
    Ok(Health { probe, timeout_s: timeout_s.unwrap_or(HEALTH_TIMEOUT_S) })
}

fn no_port(port: u32) -> ApiError {
    bad(format!("health.tcp_port = {port} is not a TCP port")).remedy("give a number from 1 to 65535")
}

pub(super) fn check(health: &Health, vmm: &VmmSpec) -> Result<(), ApiError> {
    let Health { probe, timeout_s } = health;
    if !(1..=HEALTH_TIMEOUT_S_MAX).contains(timeout_s) {
        return Err(bad(format!("health.timeout_s = {timeout_s} is not 1 to {HEALTH_TIMEOUT_S_MAX}"))
            .remedy("give seconds; the old VM stands still for that long"));
    }
    match (probe, vmm) {
        (Probe::Command(words), _) if words.is_empty() => {
            Err(bad("health.command is empty").remedy("give the name of a program, and its arguments"))
        }
        (Probe::Command(words), _) => commands::command("health.command", words),
        (_, VmmSpec::Files(_)) => Err(bad("a machine of files answers to health.command alone")
            .cause("there is no guest that could be asked")
            .remedy("give health.command, or leave [health] out")),
        (Probe::TcpPort(0), _) => Err(no_port(0)),
        (Probe::TcpPort(_) | Probe::AgentPing, _) => Ok(()),
    }
}
