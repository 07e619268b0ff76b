//! What bad input gets: an error that says what to do, an exit code of its kind, and nothing changed or paused.
//! `host` needs no instance, `requests` one that never runs, `targets` a running cluster.

mod expect;
mod host;
mod key;
mod requests;
mod signed;
mod targets;
