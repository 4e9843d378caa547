//! JSON as far as logs need it, borrowed from the line.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// A value. The fields of an object stay in order: of two with one name, the first counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The field of an object.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Self::Object(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// A text that journald wrote as bytes, because not all of them are printable.
    pub fn bytes(&self) -> Option<String> {
        let Self::Array(values) = self else {
            return None;
        };
        let bytes: Option<Vec<u8>> = values
            .iter()
            .map(|value| match value {
                Self::Integer(byte) => u8::try_from(*byte).ok(),
                _ => None,
            })
            .collect();
        bytes
            .filter(|bytes| !bytes.is_empty())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Why a text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoJson {
    /// It ends in the middle of a value.
    CutOff,
    Broken,
}

/// The value that a text begins with, and the number of bytes it takes.
pub fn first(text: &str) -> Result<(Json<'_>, usize), NoJson> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Json<'_>>();
    match values.next() {
        Some(Ok(value)) => Ok((value, values.byte_offset())),
        Some(Err(error)) if error.is_eof() => Err(NoJson::CutOff),
        Some(Err(_)) => Err(NoJson::Broken),
        None => Err(NoJson::CutOff),
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfLine)
    }
}

/// A key, borrowed where it has no escapes: serde copies each.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(OfLine)? {
            Json::Text(text) => Ok(Self(text)),
            _ => Ok(Self(Cow::Borrowed(""))),
        }
    }
}

struct OfLine;

impl<'de> Visitor<'de> for OfLine {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        // What is above i64 is no time and no port.
        Ok(i64::try_from(value).map_or(Json::Null, Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(8);
        while let Some((Key(key), value)) = map.next_entry()? {
            fields.push((key, value));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let (value, used) = first(r#"{"a":[1,-2.5,null,true],"b\n":"\u00e9"} more"#).unwrap();
        assert_eq!(used, 39);
        assert_eq!(
            value.get("a"),
            Some(&Json::Array(vec![
                Json::Integer(1),
                Json::Float(-2.5),
                Json::Null,
                Json::Bool(true)
            ]))
        );
        assert_eq!(value.get("b\n").and_then(Json::text), Some("é"));
        assert_eq!(first(r#"{"a":"#), Err(NoJson::CutOff));
        assert_eq!(first(""), Err(NoJson::CutOff));
        assert_eq!(first(r#"{app="etcd"}"#), Err(NoJson::Broken));
        assert_eq!(first(&"[".repeat(100_000)), Err(NoJson::Broken));
    }

    #[test]
    fn text_as_bytes() {
        let (value, _) = first("[69,79,70,255]").unwrap();
        assert_eq!(value.bytes().as_deref(), Some("EOF\u{fffd}"));
        for text in ["[]", "[256]", "[\"a\"]", "{}"] {
            assert_eq!(first(text).unwrap().0.bytes(), None, "{text}");
        }
    }
}
