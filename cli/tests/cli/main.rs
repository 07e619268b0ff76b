//! The command line as its users meet it: the binary is run, and what it says is compared.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should stop")]

mod bad_input;
mod commit;
mod delta;
mod delta_interrupted;
mod delta_refusals;
mod delta_scene;
mod delta_standby;
mod doctor;
mod fake_node;
mod node_process;
mod other_commands;
mod reference;
mod run;
mod status;
mod terminal;
mod unsettled;
mod watch;
