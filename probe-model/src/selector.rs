//! Selection of pods: by name, by namespace, and by a label selector as kubectl reads it.

use std::{collections::HashMap, fmt, str::FromStr};

use super::Owner;

/// A pod's labels.
pub type Labels = HashMap<String, String>;

/// Bytes of a label's name, of its value, and of each part of a key's prefix at the most, as Kubernetes has it.
const LONGEST: usize = 63;
/// The same of a key's whole prefix.
const LONGEST_PREFIX: usize = 253;

/// A label selector: every requirement must be met. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    /// `key`
    Exists,
    /// `!key`
    Absent,
    /// `key=value`, `key in (a, b)`
    In(Vec<String>),
    /// `key!=value`, `key notin (a, b)`; also met where the key is absent.
    NotIn(Vec<String>),
}

impl Selector {
    /// Whether a pod with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::Exists => value.is_some(),
                Operator::Absent => value.is_none(),
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

/// In the shortest form that reads back as the same.
impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, operator }) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            match operator {
                Operator::Exists => write!(out, "{key}")?,
                Operator::Absent => write!(out, "!{key}")?,
                Operator::In(values) => match values.as_slice() {
                    [value] => write!(out, "{key}={value}")?,
                    values => write!(out, "{key} in ({})", values.join(","))?,
                },
                Operator::NotIn(values) => match values.as_slice() {
                    [value] => write!(out, "{key}!={value}")?,
                    values => write!(out, "{key} notin ({})", values.join(","))?,
                },
            }
        }
        Ok(())
    }
}

/// Why a selector can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorError {
    /// A selector without requirements would select every pod.
    Empty,
    /// What was expected, and what was there instead.
    Expected(&'static str, String),
    Key(String),
    Value(String),
    NoValues(String),
}

impl fmt::Display for SelectorError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => out.write_str("the selector is empty"),
            Self::Expected(expected, found) if found.is_empty() => {
                write!(out, "expected {expected} at the end of the selector")
            }
            Self::Expected(expected, found) => write!(out, "expected {expected} instead of {found:?}"),
            Self::Key(key) => write!(
                out,
                "{key:?} is not a label key such as app or app.kubernetes.io/name"
            ),
            Self::Value(value) => write!(out, "{value:?} is not a label value"),
            Self::NoValues(key) => write!(out, "the set of values of {key} is empty"),
        }
    }
}

impl std::error::Error for SelectorError {}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut tokens = Tokens { rest: text };
        if tokens.peek() == Token::End {
            return Err(SelectorError::Empty);
        }
        let mut requirements = Vec::new();
        loop {
            requirements.push(requirement(&mut tokens)?);
            match tokens.next() {
                Token::End => return Ok(Self(requirements)),
                Token::Comma => {}
                other => return Err(SelectorError::Expected("a comma", other.text())),
            }
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, SelectorError> {
    if tokens.peek() == Token::Not {
        tokens.next();
        let key = key(tokens)?;
        return Ok(Requirement {
            key,
            operator: Operator::Absent,
        });
    }
    let key = key(tokens)?;
    let operator = match tokens.peek() {
        Token::End | Token::Comma => Operator::Exists,
        Token::Equal => {
            tokens.next();
            Operator::In(vec![value(tokens)?])
        }
        Token::NotEqual => {
            tokens.next();
            Operator::NotIn(vec![value(tokens)?])
        }
        Token::Word("in") => {
            tokens.next();
            Operator::In(values(tokens, &key)?)
        }
        Token::Word("notin") => {
            tokens.next();
            Operator::NotIn(values(tokens, &key)?)
        }
        other @ (Token::Word(_) | Token::Not | Token::Open | Token::Close) => {
            return Err(SelectorError::Expected("=, !=, in or notin", other.text()));
        }
    };
    Ok(Requirement { key, operator })
}

fn key(tokens: &mut Tokens<'_>) -> Result<String, SelectorError> {
    match tokens.next() {
        Token::Word(key) if is_key(key) => Ok(key.to_owned()),
        Token::Word(key) => Err(SelectorError::Key(key.to_owned())),
        other => Err(SelectorError::Expected("a label key", other.text())),
    }
}

/// One value; nothing before a comma, a bracket or the end is the empty value.
fn value(tokens: &mut Tokens<'_>) -> Result<String, SelectorError> {
    match tokens.peek() {
        Token::Word(value) => {
            tokens.next();
            if is_value(value) {
                Ok(value.to_owned())
            } else {
                Err(SelectorError::Value(value.to_owned()))
            }
        }
        Token::End | Token::Comma | Token::Close => Ok(String::new()),
        other @ (Token::Equal | Token::NotEqual | Token::Not | Token::Open) => {
            Err(SelectorError::Expected("a label value", other.text()))
        }
    }
}

fn values(tokens: &mut Tokens<'_>, key: &str) -> Result<Vec<String>, SelectorError> {
    let open = tokens.next();
    if open != Token::Open {
        return Err(SelectorError::Expected("(", open.text()));
    }
    if tokens.peek() == Token::Close {
        return Err(SelectorError::NoValues(key.to_owned()));
    }
    let mut values = Vec::new();
    loop {
        values.push(value(tokens)?);
        match tokens.next() {
            Token::Comma => {}
            Token::Close => return Ok(values),
            other => return Err(SelectorError::Expected("a comma or )", other.text())),
        }
    }
}

/// `name` or `prefix/name`, the prefix a DNS subdomain.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => {
            let is_label = |label: &str| is_name(label) && !label.contains(['_', '.']);
            prefix.len() <= LONGEST_PREFIX
                && prefix.split('.').all(is_label)
                && !prefix.contains(|character: char| character.is_ascii_uppercase())
                && is_name(name)
        }
    }
}

fn is_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// Letters, digits, `-`, `_` and `.`, the first and the last a letter or digit.
fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= LONGEST
        && bytes.iter().copied().all(is_inner)
        && is_outer(bytes.first())
        && is_outer(bytes.last())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// `=` or `==`
    Equal,
    NotEqual,
    Not,
    Comma,
    Open,
    Close,
    End,
}

impl Token<'_> {
    fn text(self) -> String {
        match self {
            Self::Word(word) => word,
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Not => "!",
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::End => "",
        }
        .to_owned()
    }
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        let (token, rest) = split(self.rest);
        self.rest = rest;
        token
    }

    fn peek(&self) -> Token<'a> {
        split(self.rest).0
    }
}

/// The first token, and what follows it.
fn split(text: &str) -> (Token<'_>, &str) {
    const SYMBOLS: [(&str, Token<'static>); 7] = [
        ("==", Token::Equal),
        ("=", Token::Equal),
        ("!=", Token::NotEqual),
        ("!", Token::Not),
        (",", Token::Comma),
        ("(", Token::Open),
        (")", Token::Close),
    ];
    let text = text.trim_start();
    if text.is_empty() {
        return (Token::End, text);
    }
    for (symbol, token) in SYMBOLS {
        if let Some(rest) = text.strip_prefix(symbol) {
            return (token, rest);
        }
    }
    let ends = |character: char| character.is_whitespace() || "=!,()".contains(character);
    let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    (Token::Word(word), rest)
}

/// A pod's name or the beginning of one, alone or as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    pub namespace: Option<String>,
    pub name: String,
}

impl FromStr for PodName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let is_name = |name: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
            !name.is_empty() && name.bytes().all(is_inner)
        };
        if !is_name(name) || !namespace.is_none_or(is_name) {
            return Err("neither a pod's name nor NAMESPACE/NAME, such as shop/checkout-5x2kq");
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

/// Which pods are selected; nothing set: everything, also what is no pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFilter {
    /// The beginning of the name.
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub selector: Option<Selector>,
}

/// Whether something is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    Selected,
    NotSelected,
    /// Name and namespace are selected, and the labels that decide are unknown.
    LabelsUnknown,
}

impl Selection {
    /// Of two, of which one has to be selected.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Selected, _) | (_, Self::Selected) => Self::Selected,
            (Self::LabelsUnknown, _) | (_, Self::LabelsUnknown) => Self::LabelsUnknown,
            (Self::NotSelected, Self::NotSelected) => Self::NotSelected,
        }
    }
}

impl PodFilter {
    /// Whether the pod of this owner is selected.
    pub fn select(&self, owner: &Owner) -> Selection {
        if *self == Self::default() {
            return Selection::Selected;
        }
        let Some(pod) = &owner.pod else {
            return Selection::NotSelected;
        };
        let meets = |wanted: &Option<String>, is: &Option<String>, meets: fn(&str, &str) -> bool| {
            wanted
                .as_deref()
                .is_none_or(|wanted| is.as_deref().is_some_and(|is| meets(is, wanted)))
        };
        let named = meets(&self.name, &pod.name, |is, wanted| is.starts_with(wanted))
            && meets(&self.namespace, &pod.namespace, |is, wanted| is == wanted);
        if !named {
            return Selection::NotSelected;
        }
        match (&self.selector, &pod.labels) {
            (None, _) => Selection::Selected,
            (Some(_), None) => Selection::LabelsUnknown,
            (Some(selector), Some(labels)) if selector.matches(labels) => Selection::Selected,
            (Some(_), Some(_)) => Selection::NotSelected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Pod, PodSource};

    fn labels(text: &str) -> Labels {
        text.split_whitespace()
            .map(|label| {
                let (key, value) = label.split_once('=').unwrap();
                (key.to_owned(), value.to_owned())
            })
            .collect()
    }

    /// As `k8s.io/apimachinery/pkg/labels` has it: `!=` and `notin` select what has no such label.
    #[test]
    fn what_is_selected() {
        const NONE: &str = "";
        const WEB: &str = "app=web tier=front";
        const DB: &str = "app=db tier=back canary=";
        for (selector, selected) in [
            ("app=web", [false, true, false]),
            ("app==web", [false, true, false]),
            (" app = web ", [false, true, false]),
            ("app!=web", [true, false, true]),
            ("app != web", [true, false, true]),
            ("app", [false, true, true]),
            ("!app", [true, false, false]),
            ("! app", [true, false, false]),
            ("canary", [false, false, true]),
            ("canary=", [false, false, true]),
            ("canary!=", [true, true, false]),
            ("app in (web)", [false, true, false]),
            ("app in (web,db)", [false, true, true]),
            ("app in(web , db)", [false, true, true]),
            ("app notin (web)", [true, false, true]),
            ("app notin (web, db)", [true, false, false]),
            ("canary in (,x)", [false, false, true]),
            ("app=web,tier=front", [false, true, false]),
            ("app=web,tier=back", [false, false, false]),
            ("app in (web,db),!canary", [false, true, false]),
            ("app,tier notin (back)", [false, true, false]),
            ("in", [false, false, false]),
            ("notin in (in)", [false, false, false]),
            ("app.kubernetes.io/name=web", [false, false, false]),
        ] {
            let parsed: Selector = selector.parse().unwrap_or_else(|why| panic!("{selector}: {why}"));
            let is = [NONE, WEB, DB].map(|text| parsed.matches(&labels(text)));
            assert_eq!(is, selected, "{selector}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{selector}");
        }
        let prefixed: Selector = "app.kubernetes.io/name=web".parse().unwrap();
        assert!(prefixed.matches(&labels("app.kubernetes.io/name=web")));
    }

    #[test]
    fn what_is_no_selector() {
        let long = "a".repeat(LONGEST + 1);
        for (selector, says) in [
            ("", "empty"),
            ("  ", "empty"),
            (",", "expected a label key instead of \",\""),
            ("app=web,", "expected a label key at the end"),
            ("=web", "expected a label key instead of \"=\""),
            ("!", "expected a label key at the end"),
            ("!app=web", "expected a comma instead of \"=\""),
            ("app web", "expected =, !=, in or notin instead of \"web\""),
            ("app=web db", "expected a comma instead of \"db\""),
            ("app===web", "expected a label value instead of \"=\""),
            ("app in web", "expected ( instead of \"web\""),
            ("app in", "expected ( at the end"),
            ("app in ()", "set of values of app is empty"),
            ("app in (web", "expected a comma or ) at the end"),
            ("app in (web db)", "expected a comma or ) instead of \"db\""),
            ("app notin (a,b", "expected a comma or ) at the end"),
            ("app=web)", "expected a comma instead of \")\""),
            ("-app", "\"-app\" is not a label key"),
            ("app-", "\"app-\" is not a label key"),
            ("a/b/c", "\"a/b/c\" is not a label key"),
            ("/name", "\"/name\" is not a label key"),
            ("Example.com/name", "is not a label key"),
            ("app=we$b", "\"we$b\" is not a label value"),
            ("cpu>1", "\"cpu>1\" is not a label key"),
            (&long, "is not a label key"),
            (&format!("app={long}"), "is not a label value"),
        ] {
            let error = selector.parse::<Selector>().expect_err(selector).to_string();
            assert!(error.contains(says), "{selector}: {error}");
        }
    }

    #[test]
    fn names_of_pods() {
        let name = |namespace: Option<&str>, name: &str| {
            Some(PodName {
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
            })
        };
        for (text, expected) in [
            ("checkout", name(None, "checkout")),
            ("shop/checkout-5x2kq", name(Some("shop"), "checkout-5x2kq")),
            ("", None),
            ("shop/", None),
            ("/checkout", None),
            ("a/b/c", None),
            ("check out", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    #[test]
    fn owners_are_selected_by_their_pod() {
        use Selection::{LabelsUnknown, NotSelected, Selected};

        let pod = |labels: Option<Labels>| Owner {
            pod: Some(Pod {
                uid: "1".to_owned(),
                namespace: Some("shop".to_owned()),
                name: Some("web-0".to_owned()),
                qos: None,
                workload: None,
                labels: labels.map(Arc::new),
                address_since: None,
                source: PodSource::Cri,
            }),
            ..Owner::default()
        };
        let owners = [
            Owner::default(),
            pod(None),
            pod(Some(labels("app=web"))),
            pod(Some(labels("app=db"))),
        ];
        let text = |text: &str| Some(text.to_owned());
        for (name, namespace, selector, selected) in [
            (None, None, None, [Selected; 4]),
            (
                text("web"),
                None,
                None,
                [NotSelected, Selected, Selected, Selected],
            ),
            (text("eb"), None, None, [NotSelected; 4]),
            (
                None,
                text("shop"),
                None,
                [NotSelected, Selected, Selected, Selected],
            ),
            (None, text("sho"), None, [NotSelected; 4]),
            (text("web-0"), text("other"), Some("app"), [NotSelected; 4]),
            (
                None,
                text("shop"),
                Some("app=web"),
                [NotSelected, LabelsUnknown, Selected, NotSelected],
            ),
            (
                None,
                None,
                Some("!app"),
                [NotSelected, LabelsUnknown, NotSelected, NotSelected],
            ),
        ] {
            let filter = PodFilter {
                name,
                namespace,
                selector: selector.map(|selector| selector.parse().unwrap()),
            };
            let is = [0, 1, 2, 3].map(|index: usize| filter.select(&owners[index]));
            assert_eq!(is, selected, "{filter:?}");
        }
        for (one, other, both) in [
            (Selected, LabelsUnknown, Selected),
            (NotSelected, LabelsUnknown, LabelsUnknown),
            (NotSelected, NotSelected, NotSelected),
        ] {
            assert_eq!((one.or(other), other.or(one)), (both, both));
        }
    }
}
