//! What others stored, on a terminal: names on a line of their own, and values.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

/// As it is; or quoted and escaped where it would do something to a terminal, or to the lines around it.
pub fn shown(name: &str) -> Cow<'_, str> {
    match name.chars().any(acts) {
        true => Cow::Owned(format!("{name:?}")),
        false => Cow::Borrowed(name),
    }
}

/// A value, or a piece of it: as it is but for what would do something to a terminal. Line ends and tabs may.
pub fn shown_value(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| acts(character) && !matches!(character, '\n' | '\t'),
        |character| character.escape_default().to_string(),
    )
}

/// The same of JSON, which stays what it says: such characters stand in texts only, and none of them needs two escapes. Line ends stand between texts.
pub fn shown_json(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |character| acts(character) && character != '\n',
        |character| format!("\\u{:04x}", u32::from(character)),
    )
}

/// JSON as it goes to standard output.
pub fn json_for_stdout(text: &str) -> Cow<'_, str> {
    match io::stdout().is_terminal() {
        true => shown_json(text),
        false => Cow::Borrowed(text),
    }
}

/// JSON on its way to a terminal.
pub struct OnTerminal<W> {
    terminal: W,
    characters: Characters,
}

impl<W: Write> OnTerminal<W> {
    pub fn new(terminal: W) -> Self {
        let characters = Characters::default();
        Self { terminal, characters }
    }
}

impl<W: Write> Write for OnTerminal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = self.characters.of(bytes);
        self.terminal.write_all(shown_json(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.terminal.flush()
    }
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let one = |character| match is_escaped(character) {
        true => escape(character),
        false => String::from(character),
    };
    Cow::Owned(text.chars().map(one).collect())
}

/// Puts characters together that come cut into bytes anywhere.
#[derive(Default)]
pub struct Characters {
    /// The beginning of one.
    cut: Vec<u8>,
}

impl Characters {
    /// All that are whole now. What is no UTF-8 is replaced.
    pub fn of(&mut self, bytes: &[u8]) -> String {
        self.cut.extend_from_slice(bytes);
        let end = match std::str::from_utf8(&self.cut) {
            // The end may be the beginning of one.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.cut.len(),
        };
        let rest = self.cut.split_off(end);
        let whole = std::mem::replace(&mut self.cut, rest);
        String::from_utf8(whole).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// Control characters, ends of lines and paragraphs, and what turns the direction of the text around it.
fn acts(character: char) -> bool {
    let is_turn = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    character.is_control() || is_turn || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_acts_on_a_terminal_is_escaped() {
        for name in [
            "ann",
            "a b",
            "\"quoted\"",
            "back\\slash",
            "ключ",
            "e\u{301}",
            "👩\u{200d}🔬",
        ] {
            assert_eq!(shown(name), name);
        }
        assert_eq!(shown_value("two\n\tlines"), "two\n\tlines");
        assert_eq!(shown_value("red \u{1b}[31m\u{9b}2J"), r"red \u{1b}[31m\u{9b}2J");
        assert_eq!(shown_json(r#"["\u001b",""#), r#"["\u001b",""#);
        assert_eq!(shown_json("[\"\u{7f}\u{202e}ключ\"]"), r#"["\u007f\u202eключ"]"#);
        assert_eq!(shown("nl\nkey"), r#""nl\nkey""#);
        assert_eq!(shown("eve\tadmin"), r#""eve\tadmin""#);
        assert_eq!(shown("esc\u{1b}[2J"), r#""esc\u{1b}[2J""#);
        for character in ('\0'..='\u{ffff}').filter(|character| acts(*character)) {
            let shown = shown(&format!("a{character}b")).into_owned();
            assert!(!shown.contains(character), "{character:?}");
            let json = serde_json::to_string(&character).unwrap();
            let shown = shown_json(&json).into_owned();
            assert!(!shown.contains(character), "{character:?}");
            assert_eq!(serde_json::from_str::<char>(&shown).unwrap(), character);
        }
    }

    #[test]
    fn characters_that_come_in_two_are_whole_again() {
        let text = "aключ👩\u{9b}";
        for cut in 0..=text.len() {
            let mut characters = Characters::default();
            let (left, right) = text.as_bytes().split_at(cut);
            assert_eq!(characters.of(left) + &characters.of(right), text);
        }
        assert_eq!(Characters::default().of(b"a\xffb"), "a\u{fffd}b");
    }
}
