//! Words that go with numbers.

use std::fmt::Display;

/// A number and what is counted: `1 pod`, `2 pods`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let word = if count == N::from(1) { one } else { many };
    format!("{count} {word}")
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_and_many() {
        for (count, says) in [(0, "0 pods"), (1, "1 pod"), (2, "2 pods")] {
            assert_eq!(counted(count, "pod", "pods"), says);
        }
    }
}
