//! Enumerations whose values have names: one table gives the list, the text, parsing, serde and the JSON Schema.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::Listed;

/// A value as its name in JSON, for the types of the contract with the kernel programs, which have no serde.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named<T>(pub T);

impl<T: Listed> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de, T: Listed> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let named = T::ALL.iter().find(|value| value.name() == name);
        named.copied().map(Self).ok_or_else(|| {
            let names: Vec<_> = T::ALL.iter().map(|value| value.name()).collect();
            D::Error::custom(format!(
                "unknown variant `{name}`, expected one of {}",
                names.join(", ")
            ))
        })
    }
}

#[cfg(feature = "schema")]
impl<T: Listed> schemars::JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        std::any::type_name::<T>().into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema(T::ALL.iter().map(|value| value.name()))
    }
}

/// One of these names.
#[cfg(feature = "schema")]
pub fn schema(names: impl IntoIterator<Item = &'static str>) -> schemars::Schema {
    let names: Vec<_> = names.into_iter().collect();
    schemars::json_schema!({ "type": "string", "enum": names })
}

/// The JSON Schema of an enumeration made by [`names!`].
#[cfg(feature = "schema")]
#[doc(hidden)]
#[macro_export]
macro_rules! schema_of_names {
    ($type:ident) => {
        impl $crate::schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut $crate::schemars::SchemaGenerator) -> $crate::schemars::Schema {
                $crate::names::schema(Self::NAMES)
            }
        }
    };
}

/// Nothing: schemas are compiled in tests alone.
#[cfg(not(feature = "schema"))]
#[doc(hidden)]
#[macro_export]
macro_rules! schema_of_names {
    ($type:ident) => {};
}

/// Defines an enumeration with the name of each value beside it:
///
/// ```ignore
/// names! {
///     /// How bad it is.
///     #[derive(Clone, Copy, Debug, PartialEq, Eq)]
///     pub enum Severity {
///         Warning = "warning",
///         Failed = "failed",
///     }
/// }
/// ```
///
/// A value without a name does not compile, so none can be missing from a list.
///
/// With a description of each, in one line for lists of names, it is [`Listed`](crate::Listed), too:
///
/// ```ignore
/// names! {
///     /// How bad it is.
///     #[derive(Clone, Copy, Debug, PartialEq, Eq)]
///     pub enum Severity {
///         Warning = "warning" => "works, and may not for long",
///         Failed = "failed" => "broken now",
///     }
/// }
/// ```
#[macro_export]
macro_rules! names {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $type:ident {
            $($(#[$value_meta:meta])* $value:ident = $name:literal => $description:literal,)+
        }
    ) => {
        $crate::names! {
            $(#[$meta])*
            $visibility enum $type {
                $($(#[$value_meta])* $value = $name,)+
            }
        }

        $crate::listed!($type { $($value => $description,)+ });
    };
    (
        $(#[$meta:meta])*
        $visibility:vis enum $type:ident {
            $($(#[$value_meta:meta])* $value:ident = $name:literal,)+
        }
    ) => {
        $(#[$meta])*
        $visibility enum $type {
            $($(#[$value_meta])* $value,)+
        }

        impl $type {
            /// The names of all values, in the order of [`ALL`](Self::ALL).
            pub const NAMES: [&'static str; [$($name),+].len()] = [$($name),+];

            /// All values, in the order of lists.
            pub const ALL: [Self; Self::NAMES.len()] = [$(Self::$value),+];

            /// The name in JSON, in tables and on the command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            /// The value that has this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.name() == name)
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = <::std::string::String as ::serde::Deserialize>::deserialize(deserializer)?;
                Self::from_name(&name)
                    .ok_or_else(|| ::serde::de::Error::unknown_variant(&name, &Self::NAMES))
            }
        }

        $crate::schema_of_names!($type);
    };
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::{bypass, cause, doctor, owner, part, path, tls, translation, verdict, vxlan, workload};

    names! {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Severity {
            Warning = "warning",
            Failed = "has failed",
        }
    }

    #[test]
    fn one_table_gives_all() {
        assert_eq!(Severity::ALL, [Severity::Warning, Severity::Failed]);
        assert_eq!(Severity::ALL.map(Severity::name), Severity::NAMES);
        assert_eq!(Severity::from_name("has failed"), Some(Severity::Failed));
        assert_eq!(Severity::from_name("failed"), None);
        assert_eq!(format!("{:<9}|", Severity::Warning), "warning  |");
        assert_eq!(
            serde_json::to_string(&Severity::ALL).unwrap(),
            r#"["warning","has failed"]"#
        );
        let read = |json| serde_json::from_str::<Severity>(json).map_err(|error| error.to_string());
        assert_eq!(read("\"warning\""), Ok(Severity::Warning));
        assert!(
            read("\"x\"")
                .unwrap_err()
                .starts_with("unknown variant `x`, expected `warning` or `has failed`")
        );
    }

    /// No name stands for two values of one type.
    #[test]
    fn names_differ() {
        let lists: [&[&str]; 23] = [
            &bypass::finding::Fault::NAMES,
            &bypass::rule::Intended::NAMES,
            &bypass::service::Mode::NAMES,
            &bypass::view::RuleState::NAMES,
            &cause::CauseKind::NAMES,
            &doctor::Check::NAMES,
            &doctor::CheckVerdict::NAMES,
            &owner::PodSource::NAMES,
            &owner::ProcessSource::NAMES,
            &owner::Qos::NAMES,
            &owner::Runtime::NAMES,
            &part::Part::NAMES,
            &path::Outcome::NAMES,
            &path::Tracking::NAMES,
            &path::event::Hook::NAMES,
            &path::event::HookVerdict::NAMES,
            &tls::Protocol::NAMES,
            &tls::Why::NAMES,
            &translation::Untranslated::NAMES,
            &vxlan::finding::Fault::NAMES,
            &verdict::Verdict::NAMES,
            &vxlan::overlay::PeerEntry::NAMES,
            &workload::WorkloadSource::NAMES,
        ];
        for list in lists {
            let names: HashSet<_> = list.iter().collect();
            assert_eq!(names.len(), list.len(), "{list:?}");
        }
    }
}
