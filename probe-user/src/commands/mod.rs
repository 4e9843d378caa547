//! One file a subcommand. A command composes the rooms; it decides nothing about packets or pods.

pub mod watch;
