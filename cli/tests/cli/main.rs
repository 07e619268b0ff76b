//! The command line as its users meet it: the binary is run, and what it says is compared.

mod bad_input;
mod commit;
mod fake_node;
mod other_commands;
mod reference;
mod run;
