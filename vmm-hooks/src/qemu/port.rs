//! Does somebody in the guest listen at a TCP port? Asked through QEMU's user-mode network, which forwards a port of this
//! host's loopback to the guest.
//!
//! That network takes our connection before it has asked the guest: being connected says nothing. So it is asked how far
//! the connection's other half has come (`info usernet`, the list that libslirp's `slirp_connection_info` prints).

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use tokio::net::TcpStream;

use super::guest::Guest;
use super::probation::Asked;
use crate::limits::PROBE_INTERVAL;
use crate::{Error, Result};

pub(super) async fn ask(guest: &Guest) -> Asked {
    let Some(port) = forwarded(&connections(guest).await?) else {
        let problem = "no port is forwarded".to_owned();
        return Err(Error::Protocol { name: guest.name.clone(), command: "info usernet", problem });
    };
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(to).await.map_err(Error::io("connect to", to.to_string()))?;
    loop {
        if is_established(&connections(guest).await?, port) {
            return Ok(Ok(()));
        }
        // Whoever is there may be first to speak, or to hang up.
        match stream.try_read(&mut [0]) {
            Ok(1..) => return Ok(Ok(())),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return Ok(Err("nobody takes connections there".into())),
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

async fn connections(guest: &Guest) -> Result<String> {
    let answer = guest.qmp.execute("human-monitor-command", json!({ "command-line": "info usernet" })).await?;
    Ok(answer.as_str().unwrap_or_default().to_owned())
}

/// The words of each line behind its number.
fn lines<'a>(text: &'a str, state: &'a str) -> impl Iterator<Item = Vec<&'a str>> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(move |words| words.first().is_some_and(|first| *first == state))
}

/// `TCP[HOST_FORWARD]  11  127.0.0.1 37907  10.0.2.15  80  0  0`: the port on this host.
fn forwarded(text: &str) -> Option<u16> {
    lines(text, "TCP[HOST_FORWARD]").find_map(|words| words.get(3)?.parse().ok())
}

/// `TCP[ESTABLISHED]  20  127.0.0.1 37907  10.0.2.15  80  0  0`: ours, by the port that it goes to.
fn is_established(text: &str, port: u16) -> bool {
    let port = port.to_string();
    lines(text, "TCP[ESTABLISHED]").any(|words| words.get(3) == Some(&port.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Hub -1 (n0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   13       127.0.0.1 37907       10.0.2.15    80     0     0\r
  TCP[SYN_SENT]      14       127.0.0.1 37908       10.0.2.15    81     0     0\r
  TCP[HOST_FORWARD]  11       127.0.0.1 37907       10.0.2.15    80     0     0\r\n";

    #[test]
    fn the_list_is_read() {
        assert_eq!(forwarded(SAID), Some(37907));
        assert!(is_established(SAID, 37907));
        assert!(!is_established(SAID, 37908) && !is_established(SAID, 80));
        assert_eq!(forwarded("Hub -1 (n0):"), None);
    }
}
