//! Reads what a Rust source uses and defines from its tokens. Code that is compiled for tests only is left out.

use std::collections::VecDeque;

/// A file below `src` of a crate.
#[derive(Clone, Debug)]
pub struct Source {
    /// From the root of the project, with slashes.
    pub path: String,
    pub text: String,
}

/// A path that a file names: imported, or written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub line: usize,
    /// The module that names it, from the crate's root.
    pub from: Vec<String>,
    /// Its segments: from the crate's root on if it is `ours`, else as written.
    pub to: Vec<String>,
    pub ours: bool,
}

/// A type that a file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub line: usize,
    pub name: String,
    pub public: bool,
}

/// What is in a file.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pub uses: Vec<Use>,
    pub types: Vec<Definition>,
    /// Lines of `const ALL: [Self; …]`: lists of an enumeration's values that are written by hand.
    pub lists: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Word(String),
    Sign(char),
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    kind: Kind,
}

impl Token {
    fn is(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }

    fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            Kind::Sign(_) => None,
        }
    }
}

impl Source {
    /// The path below its crate's `src`; `None`: it is not in one.
    pub fn below_src(&self) -> Option<&str> {
        self.path.split_once("/src/").map(|(_, below)| below)
    }

    /// Whether all of it is for tests.
    pub fn is_test(&self) -> bool {
        let mut parts = self.path.rsplit('/');
        let file = parts.next().unwrap_or_default();
        ["tests.rs", "samples.rs"].contains(&file)
            || file.ends_with("_tests.rs")
            || parts.any(|folder| folder == "tests")
    }

    /// Its module, from the crate's root.
    fn module(&self) -> Vec<String> {
        let below = self.below_src().unwrap_or_default().trim_end_matches(".rs");
        let mut parts: Vec<_> = below.split('/').map(str::to_owned).collect();
        if parts
            .last()
            .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
        {
            parts.pop();
        }
        parts
    }

    /// The name by which other crates know its crate.
    fn library(&self) -> String {
        let name = self.path.split('/').next().unwrap_or_default();
        name.replace('-', "_")
    }

    /// What it uses and defines outside tests.
    pub fn contents(&self) -> Contents {
        let mut reader = Reader {
            tokens: tokens(&self.text).into(),
            modules: vec![(0, self.module())],
            depth: 0,
            library: self.library(),
            found: Contents::default(),
        };
        reader.read();
        reader.found
    }
}

/// The words and signs of a source; comments, literals and lifetimes are none.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            tokens.push(Token {
                line,
                kind: Kind::Word(rest[..length].to_owned()),
            });
            length
        } else {
            if !first.is_whitespace() {
                tokens.push(Token {
                    line,
                    kind: Kind::Sign(first),
                });
            }
            first.len_utf8()
        };
        let (read, left) = rest.split_at(length);
        line += read.matches('\n').count();
        rest = left;
    }
    tokens
}

/// Bytes of a comment that begins here, with those in it.
fn comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Bytes of the text, character or lifetime that begins here.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""]
        .into_iter()
        .find(|prefix| {
            let rest = text.strip_prefix(prefix);
            rest.is_some_and(|rest| {
                rest.starts_with('"')
                    || prefix.ends_with('r') && rest.trim_start_matches('#').starts_with('"')
                    || ["b", ""].contains(prefix) && rest.starts_with('\'')
            })
        })?
        .len();
    let rest = &text[prefix..];
    if text[..prefix].ends_with('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let from = hashes + 1;
        let length = rest[from..]
            .find(&end)
            .map_or(rest.len(), |at| from + at + end.len());
        return Some(prefix + length);
    }
    let quote = rest.chars().next()?;
    let mut characters = rest.char_indices().skip(1);
    if quote == '\'' {
        let (_, first) = characters.next()?;
        let (second, closing) = characters.clone().next()?;
        if first != '\\' && closing != '\'' {
            // A lifetime.
            let length = rest[1..]
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .map_or(rest.len(), |at| at + 1);
            return Some(prefix + length.max(second));
        }
        if first == '\\' {
            characters.next();
        }
    }
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return Some(prefix + at + 1);
        }
    }
    Some(text.len())
}

struct Reader {
    tokens: VecDeque<Token>,
    /// Modules that are open: how deep their braces are, and their paths.
    modules: Vec<(usize, Vec<String>)>,
    depth: usize,
    library: String,
    found: Contents,
}

impl Reader {
    fn read(&mut self) {
        // Dots right before the token: one makes it a field or a method, two a range or the rest of a struct.
        let (mut public, mut dots) = (false, 0);
        while let Some(token) = self.tokens.pop_front() {
            let is_member = dots == 1;
            dots = if token.is('.') { dots + 1 } else { 0 };
            match token.word() {
                None => {
                    if token.is('#') && self.attribute_is_for_tests() {
                        self.skip_item();
                    }
                    match token.kind {
                        Kind::Sign('{') => self.depth += 1,
                        Kind::Sign('}') => {
                            self.depth = self.depth.saturating_sub(1);
                            if self.modules.len() > 1
                                && self.modules.last().is_some_and(|(depth, _)| *depth > self.depth)
                            {
                                self.modules.pop();
                            }
                        }
                        Kind::Sign(_) | Kind::Word(_) => {}
                    }
                    // `pub(crate)`
                    public &= token.is('(') || token.is(')');
                }
                // What a function's result captures: `use<'a>`.
                Some("use") if self.next_is('<') => {}
                Some("const") if self.is_list() => self.found.lists.push(token.line),
                Some("use") => self.imports(Vec::new()),
                Some("mod") => self.module(),
                Some("pub") => public = true,
                Some("crate" | "super" | "in") if public && self.next_is(')') => {}
                Some("struct" | "enum" | "union" | "type" | "trait") if !is_member => {
                    if let Some(name) = self.next_word() {
                        self.found.types.push(Definition {
                            line: token.line,
                            name,
                            public,
                        });
                    }
                    public = false;
                }
                Some(word) => {
                    let word = word.to_owned();
                    if !["unsafe", "const", "async"].contains(&word.as_str()) {
                        public = false;
                    }
                    if !is_member {
                        self.path(token.line, word);
                    }
                }
            }
        }
    }

    fn next_is(&self, sign: char) -> bool {
        self.tokens.front().is_some_and(|token| token.is(sign))
    }

    fn next_word(&self) -> Option<String> {
        self.tokens.front()?.word().map(str::to_owned)
    }

    /// Behind `const`: whether it is a list of an enumeration's values.
    fn is_list(&self) -> bool {
        let word = |at: usize| self.tokens.get(at).and_then(Token::word);
        let is = |at: usize, sign: char| self.tokens.get(at).is_some_and(|token| token.is(sign));
        word(0) == Some("ALL") && is(1, ':') && is(2, '[') && word(3) == Some("Self")
    }

    /// A path that is written out.
    fn path(&mut self, line: usize, first: String) {
        let mut segments = vec![first];
        while self.next_is(':') && self.tokens.get(1).is_some_and(|token| token.is(':')) {
            let Some(word) = self.tokens.get(2).and_then(Token::word).map(str::to_owned) else {
                break;
            };
            self.tokens.drain(..3);
            segments.push(word);
        }
        if segments.len() > 1 {
            self.name(line, segments);
        }
    }

    /// Behind `use`, or in its braces: what is imported below `prefix`.
    fn imports(&mut self, prefix: Vec<String>) {
        let (mut segments, mut line, mut renamed) = (prefix.clone(), 0, false);
        while let Some(token) = self.tokens.pop_front() {
            line = token.line;
            match &token.kind {
                Kind::Sign('{') => self.imports(segments.clone()),
                Kind::Sign(',' | ';' | '}') => {
                    if segments.len() > prefix.len() {
                        self.name(line, segments);
                    }
                    segments = prefix.clone();
                    renamed = false;
                    if !token.is(',') {
                        return;
                    }
                }
                Kind::Word(word) if word == "as" => renamed = true,
                Kind::Word(word) if word == "self" && !segments.is_empty() => {
                    self.name(line, segments.clone());
                }
                Kind::Word(word) if !renamed => segments.push(word.clone()),
                Kind::Word(_) | Kind::Sign(_) => {}
            }
            // A group was read to its end.
            if token.is('{') {
                segments = prefix.clone();
            }
        }
        if segments.len() > prefix.len() {
            self.name(line, segments);
        }
    }

    /// Behind `mod`: a module with a body is entered.
    fn module(&mut self) {
        let Some(name) = self.next_word() else { return };
        if self.tokens.get(1).is_some_and(|token| token.is('{')) {
            self.tokens.drain(..2);
            self.depth += 1;
            let mut path = self.here();
            path.push(name);
            self.modules.push((self.depth, path));
        }
    }

    fn here(&self) -> Vec<String> {
        self.modules
            .last()
            .map(|(_, path)| path.clone())
            .unwrap_or_default()
    }

    fn name(&mut self, line: usize, written: Vec<String>) {
        let from = self.here();
        let mut rest = written.as_slice();
        let mut base = match rest {
            [first, left @ ..] if first == "crate" || *first == self.library => {
                rest = left;
                Some(Vec::new())
            }
            [first, left @ ..] if first == "self" => {
                rest = left;
                Some(from.clone())
            }
            [first, ..] if first == "super" => Some(from.clone()),
            _ => None,
        };
        while let [first, left @ ..] = rest
            && first == "super"
            && let Some(base) = &mut base
        {
            base.pop();
            rest = left;
        }
        let ours = base.is_some();
        let mut to = base.unwrap_or_default();
        to.extend_from_slice(rest);
        self.found.uses.push(Use { line, from, to, ours });
    }

    /// Behind `#`: takes an attribute; whether what follows is for tests alone.
    fn attribute_is_for_tests(&mut self) -> bool {
        if self.next_is('!') {
            self.tokens.pop_front();
        }
        if !self.next_is('[') {
            return false;
        }
        let (mut depth, mut words) = (0, Vec::new());
        while let Some(token) = self.tokens.pop_front() {
            match &token.kind {
                Kind::Sign('[') => depth += 1,
                Kind::Sign(']') => depth -= 1,
                Kind::Word(word) => words.push(word.clone()),
                Kind::Sign(_) => {}
            }
            if depth == 0 {
                break;
            }
        }
        let has = |word: &str| words.iter().any(|known| known == word);
        words
            .first()
            .is_some_and(|first| first == "test" || first == "cfg")
            && has("test")
            && !has("not")
    }

    /// Takes all of an item, with the attributes that follow.
    fn skip_item(&mut self) {
        let ends_with_braces = loop {
            match self.tokens.front() {
                Some(token) if token.is('#') => {
                    self.tokens.pop_front();
                    self.attribute_is_for_tests();
                }
                Some(token) => match token.word() {
                    Some("pub" | "crate" | "super") | None => drop(self.tokens.pop_front()),
                    Some("use" | "static" | "type") => break false,
                    Some(_) => break true,
                },
                None => return,
            }
        };
        let mut depth = 0_usize;
        while let Some(token) = self.tokens.pop_front() {
            match token.kind {
                Kind::Sign('{' | '(' | '[') => depth += 1,
                Kind::Sign('}' | ')' | ']') => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && token.is('}') && ends_with_braces {
                        return;
                    }
                }
                Kind::Sign(';') if depth == 0 => return,
                Kind::Sign(_) | Kind::Word(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(path: &str, text: &str) -> Contents {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
        .contents()
    }

    fn uses(path: &str, text: &str) -> Vec<String> {
        let found = contents(path, text).uses.into_iter();
        found
            .map(|Use { line, to, ours, .. }| {
                format!("{line} {}{}", if ours { "crate::" } else { "" }, to.join("::"))
            })
            .collect()
    }

    #[test]
    fn imports_in_groups() {
        let text = "use std::{fs, io::{self, Write as _}};\npub use crate::a::{b as c, self};\nuse super::{\n    d,\n    \
                    e::{f, g},\n};\nuse self::h::*;";
        assert_eq!(
            uses("probe-user/src/room/file.rs", text),
            [
                "1 std::fs",
                "1 std::io",
                "1 std::io::Write",
                "2 crate::a::b",
                "2 crate::a",
                "4 crate::room::d",
                "5 crate::room::e::f",
                "5 crate::room::e::g",
                "7 crate::room::file::h",
            ]
        );
    }

    #[test]
    fn paths_written_out() {
        let text = "fn f<'a>(x: &'a crate::a::B) {\n    x.fs::<u8>();\n    probe_user::c::d('\\'', '\"', b'x');\n    \
                    let t = std::time::Instant::now();\n    match x { crate::a::E { y } => super::super::z(y) }\n}";
        assert_eq!(
            uses("probe-user/src/room/file.rs", text),
            [
                "1 crate::a::B",
                "3 crate::c::d",
                "4 std::time::Instant::now",
                "5 crate::a::E",
                "5 crate::z",
            ]
        );
    }

    #[test]
    fn what_is_no_code() {
        let text = "// use crate::a;\n/* use crate::b; /* */ use crate::c; */\n//! use crate::d;\nconst X: &str = \"use \
                    crate::e;\";\nconst Y: &str = r#\"use \"crate::f;\"#;\nconst Z: &[u8] = br\"use crate::g;\";\nuse crate::h;";
        assert_eq!(uses("probe-user/src/x.rs", text), ["7 crate::h"]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "#[cfg(test)]\n#[path = \"x\"]\nmod a;\n#[cfg(test)]\nuse crate::{b, c};\n#[cfg(any(test, feature = \
                    \"samples\"))]\npub mod d { use crate::e; fn f() {} }\n#[test]\nfn g() { crate::h::i() }\n#[cfg(not(test))]\n\
                    use crate::j;\n#[derive(Clone)]\nstruct K;\n";
        assert_eq!(uses("probe-user/src/x.rs", text), ["11 crate::j"]);
        for (path, expected) in [
            ("probe-user/src/a/tests.rs", true),
            ("probe-user/src/a/json_tests.rs", true),
            ("probe-user/src/a/tests/b.rs", true),
            ("probe-user/src/a/samples.rs", true),
            ("probe-user/src/a/test.rs", false),
        ] {
            let source = Source {
                path: path.to_owned(),
                text: String::new(),
            };
            assert_eq!(source.is_test(), expected, "{path}");
        }
    }

    #[test]
    fn modules_and_their_parents() {
        let text = "mod inner {\n    use super::a;\n    fn f() { if true {} }\n    use super::super::b;\n}\nuse super::c;";
        assert_eq!(
            uses("probe-user/src/room/mod.rs", text),
            ["2 crate::room::a", "4 crate::b", "6 crate::c"]
        );
        assert_eq!(
            uses("probe-user/src/lib.rs", "use self::a::b;"),
            ["1 crate::a::b"]
        );
    }

    #[test]
    fn lists_of_values() {
        let text = "impl A {\n    pub const ALL: [Self; 2] = [Self::B, Self::C];\n}\nimpl D for A {\n    const ALL: &'static \
                    [Self] = &Self::ALL;\n}\npub const ALL: [Metric; 1] = [X];\n#[cfg(test)]\nmod tests { const ALL: [Self; 0] = []; }";
        assert_eq!(contents("probe-model/src/x.rs", text).lists, [2]);
    }

    #[test]
    fn types_that_are_defined() {
        let text = "pub struct A<'a>(&'a str);\npub(crate) enum B { C }\ntype D = u8;\nimpl X for A { type E = u8; }\nnames! {\n    \
                    /// Doc\n    pub enum F { G = \"g\" }\n}\npub unsafe trait H {}\nfn f(x: I) { x.union(y) }";
        let found = contents("probe-model/src/x.rs", text).types;
        let told: Vec<_> = found
            .iter()
            .map(|found| (found.line, found.name.as_str(), found.public))
            .collect();
        assert_eq!(
            told,
            [
                (1, "A", true),
                (2, "B", true),
                (3, "D", false),
                (4, "E", false),
                (7, "F", true),
                (9, "H", true),
            ]
        );
    }
}
