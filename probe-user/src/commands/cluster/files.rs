//! Open files of a command that holds a connection to many nodes.

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files of other use: standard streams, the kubeconfig, a recording, the runtime's own, one more for each list.
const OTHERS: u64 = 64;

/// What the limits are to become for so many connections: `Ok(None)` where they are enough; else how many are needed.
fn raised(connections: usize, soft: u64, hard: u64) -> Result<Option<u64>, u64> {
    let needed = (connections as u64).saturating_add(OTHERS);
    if needed <= soft {
        Ok(None)
    } else if needed <= hard {
        Ok(Some(needed))
    } else {
        Err(needed)
    }
}

/// Raises this process's own limit, so that it may hold so many connections. Programs that it starts inherit no more than that.
///
/// # Errors
/// When no process here may have as many.
pub fn allow(connections: usize) -> Result<()> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        // It can't be known; what fails for it says so.
        return Ok(());
    };
    match raised(connections, soft, hard) {
        Ok(None) => Ok(()),
        Ok(Some(needed)) => {
            // Within the hard limit nothing refuses it.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, needed, hard);
            Ok(())
        }
        Err(needed) => bail!(
            "connections to {connections} nodes need {needed} open files, the limit is {hard} (ulimit -Hn): raise it, or \
             name nodes (--node)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_is_needed() {
        for (connections, soft, hard, expected) in [
            (16, 1024, 4096, Ok(None)),
            (960, 1024, 4096, Ok(None)),
            (961, 1024, 4096, Ok(Some(1025))),
            (4032, 1024, 4096, Ok(Some(4096))),
            (4033, 1024, 4096, Err(4097)),
            (5000, u64::MAX, u64::MAX, Ok(None)),
        ] {
            assert_eq!(raised(connections, soft, hard), expected, "{connections}");
        }
    }
}
