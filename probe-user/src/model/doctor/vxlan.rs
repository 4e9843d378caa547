//! Rules of the check `vxlan`.
