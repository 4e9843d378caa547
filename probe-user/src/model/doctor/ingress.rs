//! Rules of the check `ingress`.
