//! The words of an argument that is a line for a shell, and the assignments in a word.

use std::ops::Range;

/// A word's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    pub from: usize,
    pub to: usize,
}

/// More than a command line that is read has.
const MOST: usize = 1024;

/// Words between blanks; what is in quotes is one. At most [`MOST`], of which the last is the rest.
pub fn of(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    let mut open = None;
    for (at, letter) in text.char_indices() {
        let is_blank = letter.is_whitespace() && open.is_none();
        if is_blank && words.len() + 1 < MOST {
            words.extend(word.take().map(|word| Word { to: at, ..word }));
            continue;
        }
        if !is_blank && word.is_none() {
            word = Some(Word {
                from: at,
                to: text.len(),
            });
        }
        if matches!(letter, '"' | '\'') {
            open = match open {
                None => Some(letter),
                Some(quote) if quote == letter => None,
                open => open,
            };
        }
    }
    words.extend(word);
    words
}

/// The name before a sign at `sign` and the value behind it, of `name=value`, `"name":"value"` and `name: value`.
pub fn assignment(word: &str, sign: usize) -> Option<(Range<usize>, Range<usize>)> {
    let is_colon = word.as_bytes().get(sign) == Some(&b':');
    let before = word.get(..sign)?;
    let (before, is_quoted) = match before.strip_suffix(['"', '\'']) {
        Some(before) => (before, true),
        None => (before, false),
    };
    let is_name = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | '[' | ']');
    let begin = before
        .char_indices()
        .rev()
        .take_while(|(_, letter)| is_name(*letter))
        .last()?
        .0;
    // Of a colon only where an object has it: hosts and times have some, too.
    if is_colon && !is_quoted {
        return None;
    }
    let behind = word.get(sign + 1..)?;
    let blanks = behind.len() - behind.trim_start_matches([' ', '"', '\'']).len();
    let from = sign + 1 + blanks;
    let quote = behind
        .get(..blanks)?
        .chars()
        .rev()
        .find(|letter| matches!(letter, '"' | '\''));
    let text = word.get(from..)?;
    let is_first = begin == 0;
    let length = match quote {
        Some(quote) => text.find(quote),
        // A password may have a comma, if it is all that the word has.
        None if is_first => text.find(['"', '\'']),
        None => text.find([',', ';', '&', ' ', '"', '\'', '#']),
    };
    let to = length.map_or(word.len(), |length| from + length);
    Some((begin..before.len(), from..to))
}
