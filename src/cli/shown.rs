//! Names on a line of their own.

use std::borrow::Cow;

/// As it is; or quoted and escaped where it would do something to a terminal, or to the lines around it.
pub fn shown(name: &str) -> Cow<'_, str> {
    match name.chars().any(acts) {
        true => Cow::Owned(format!("{name:?}")),
        false => Cow::Borrowed(name),
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
        assert_eq!(shown("nl\nkey"), r#""nl\nkey""#);
        assert_eq!(shown("eve\tadmin"), r#""eve\tadmin""#);
        assert_eq!(shown("esc\u{1b}[2J"), r#""esc\u{1b}[2J""#);
        for character in ('\0'..='\u{ffff}').filter(|character| acts(*character)) {
            let shown = shown(&format!("a{character}b")).into_owned();
            assert!(!shown.contains(character), "{character:?}");
        }
    }
}
