//! Values of labels, made safe: names come from pods, rules and kernels.

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

use crate::report::escape;

/// The longest value, in columns.
const LONGEST: usize = 200;

/// A value: without control characters, of bounded length.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(Box<str>);

impl Value {
    pub fn new(text: &str) -> Self {
        Self::cut(text, LONGEST)
    }

    /// At most so many columns.
    pub fn cut(text: &str, longest: usize) -> Self {
        let mut safe = Vec::with_capacity(text.len().min(longest));
        escape::push(&mut safe, text, longest);
        Self(String::from_utf8_lossy(&safe).into())
    }
}

impl<T: AsRef<str>> From<T> for Value {
    fn from(text: T) -> Self {
        Self::new(text.as_ref())
    }
}

/// Names with their values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels<'a>(pub &'static [&'static str], pub &'a [Value]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), std::fmt::Error> {
        for (name, value) in self.0.iter().zip(self.1) {
            (*name, &*value.0).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
