//! What the node's own files say: read with bounds, parsed by pure functions. Nothing in them is trusted.

pub mod files;
