//! The engine, whole: nodes with QUIC on loopback, SQLite, files, and their API over HTTP; only the guests are fake.

mod before;
mod client;
mod commits;
mod damage;
mod doctor;
mod ending;
mod failures;
mod gate;
mod hints;
mod hooks;
mod joining;
mod lifecycle;
mod lost_coordinator;
mod lost_target;
mod monitor;
mod node;
mod offers;
mod overlap;
mod rogue;
mod scene;
mod seeding;
mod standbys;
mod traces;
mod upgrade;
