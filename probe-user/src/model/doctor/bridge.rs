//! Rules of the check `bridge`.
