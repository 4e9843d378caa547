//! Rules of the check `dns`.
