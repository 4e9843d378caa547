//! What is missing before anything is tried.

use anyhow::{Result, bail};

use crate::{
    kernel::capabilities::{Need, missing},
    report::say,
};

/// Fails when the kernel would refuse to load anything; warns when only names would be missing.
pub fn check(command: &str, needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.iter().any(|need| need.lost.is_none()) {
        let mut text = format!("not allowed to run {command}. Missing capabilities:\n");
        for need in &missing {
            text.push_str(&format!(
                "  {:<20} {}\n",
                need.capability.to_string(),
                need.purpose
            ));
        }
        text.push_str("Run it with sudo, or give its user or container these capabilities.");
        bail!(text);
    }
    for need in missing {
        let lost = need.lost.unwrap_or_default();
        say(format_args!(
            "probe: {command} runs without {lost}: {} is missing",
            need.capability
        ));
    }
    Ok(())
}
