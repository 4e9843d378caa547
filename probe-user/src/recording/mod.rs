//! Recordings: what `probe watch --record` keeps, and `probe who` and `probe etcd-log` read.

pub mod connection;
pub mod doctor;
pub mod history;
pub mod read;
pub mod store;
pub mod write;
