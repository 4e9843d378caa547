//! Rules of the check `etcd`.
