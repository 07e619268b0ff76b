//! Where a node's API is.

use std::fmt;
use std::str::FromStr;

/// `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeUrl {
    /// `host:port`; an IPv6 address stands in brackets.
    authority: String,
}

impl NodeUrl {
    /// For a socket, and for the Host header.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for NodeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a node's URL looks like http://127.0.0.1:3002".to_owned();
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err("nodes speak plain http; reach a distant one through a tunnel".into()),
            Some(_) => return Err(wrong()),
            None => text,
        };
        let uri: hyper::Uri =
            format!("http://{}/", rest.strip_suffix('/').unwrap_or(rest)).parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        if uri.path() != "/" || uri.query().is_some() || authority.host().is_empty() {
            return Err(wrong());
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(wrong()),
        };
        Ok(Self { authority: format!("{}:{port}", authority.host()) })
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_nodes() {
        for (text, url) in [
            ("http://127.0.0.1:3002", "http://127.0.0.1:3002"),
            ("http://node.example/", "http://node.example:80"),
            ("localhost:3002", "http://localhost:3002"),
            ("http://[::1]:3002", "http://[::1]:3002"),
        ] {
            assert_eq!(text.parse::<NodeUrl>().unwrap().to_string(), url);
        }
        for text in
            ["", "http://", "https://h:1", "ftp://h:1", "http://h:1/api", "http://u@h:1", "http://h:x", "http://h:1?q"]
        {
            assert!(text.parse::<NodeUrl>().is_err(), "{text}");
        }
    }
}
