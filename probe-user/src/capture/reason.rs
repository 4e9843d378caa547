//! Why a packet was dropped, by the kernel's name.

use std::collections::HashMap;

/// `names`: by this kernel's numbers, if it reports reasons at all. One without a name is its number.
pub fn named(reason: u32, names: Option<&HashMap<u32, String>>) -> Option<String> {
    let name = names?.get(&reason).cloned();
    Some(name.unwrap_or_else(|| format!("reason {reason}")))
}
