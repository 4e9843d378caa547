//! Rules of the check `settings`.
