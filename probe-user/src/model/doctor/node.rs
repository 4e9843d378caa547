//! Rules of the check `node`.
