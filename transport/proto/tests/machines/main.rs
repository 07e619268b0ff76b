//! The machines in a world of their own: explored exhaustively (`model`), run at random (`simulation`), and rule by rule
//! (`rules`).

mod model;
mod rules;
mod simulation;
mod world;
