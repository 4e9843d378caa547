//! What is missing before anything is tried.

use anyhow::{Result, bail};

use crate::kernel::capabilities::{WATCH, missing};

/// Fails when the kernel would refuse to load anything; warns when only names would be missing.
pub fn check() -> Result<()> {
    let missing = missing(&WATCH);
    if missing.iter().any(|need| need.required) {
        let mut text = "not allowed to watch connections. Missing capabilities:\n".to_owned();
        for need in &missing {
            text.push_str(&format!(
                "  {:<20} {}\n",
                need.capability.to_string(),
                need.purpose
            ));
        }
        text.push_str("Run it with sudo, or as a user or container that has these.");
        bail!(text);
    }
    for need in missing {
        eprintln!(
            "probe: without {} it can't {}: some names will be missing",
            need.capability, need.purpose
        );
    }
    Ok(())
}
