//! Rules of the check `bypass`.
