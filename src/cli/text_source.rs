//! A text that is read in parts of bounded size, cut between characters.
//!
//! Invariant: the parts joined up are the bytes that were read, and all of them are valid UTF-8.

use std::io::{self, Read};

/// The longest UTF-8 character: so far must be read beyond a part to know whether it is the last.
const CHAR_BYTES_MAX: usize = 4;

/// A piece of the text; the last one says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPart {
    pub text: String,
    pub last: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("invalid UTF-8 at byte {offset}; values are text: encode other data first, for example with base64")]
    InvalidUtf8 { offset: u64 },
    #[error("cannot read it")]
    Read(#[from] io::Error),
}

/// Reads at most a little more than one part ahead.
pub struct TextParts<R> {
    source: R,
    part_bytes: usize,
    buffer: Vec<u8>,
    /// Bytes of the parts given so far.
    given_bytes: u64,
    done: bool,
}

impl<R: Read> TextParts<R> {
    /// `part_bytes` must leave room for one character.
    pub fn new(source: R, part_bytes: usize) -> Self {
        Self {
            source,
            part_bytes: part_bytes.max(CHAR_BYTES_MAX),
            buffer: Vec::new(),
            given_bytes: 0,
            done: false,
        }
    }

    /// Bytes of the parts given so far.
    pub fn given_bytes(&self) -> u64 {
        self.given_bytes
    }

    /// The next part; None after the last. An empty text is one empty part.
    pub fn next_part(&mut self) -> Result<Option<TextPart>, TextError> {
        if self.done {
            return Ok(None);
        }
        let wanted = self.part_bytes + CHAR_BYTES_MAX - self.buffer.len();
        self.source.by_ref().take(wanted as u64).read_to_end(&mut self.buffer)?;
        let last = self.buffer.len() <= self.part_bytes;
        let head_bytes = self.buffer.len().min(self.part_bytes);
        let cut = match std::str::from_utf8(self.buffer.get(..head_bytes).unwrap_or_default()) {
            Ok(_) => head_bytes,
            Err(error) if error.error_len().is_none() && !last => error.valid_up_to(),
            Err(error) => {
                let offset = self.given_bytes + error.valid_up_to() as u64;
                return Err(TextError::InvalidUtf8 { offset });
            }
        };
        let rest = self.buffer.split_off(cut);
        let part = std::mem::replace(&mut self.buffer, rest);
        let text = String::from_utf8(part).map_err(|_| TextError::InvalidUtf8 {
            offset: self.given_bytes,
        })?;
        self.given_bytes += text.len() as u64;
        self.done = last;
        Ok(Some(TextPart { text, last }))
    }
}

/// Reads to the end; how many bytes the text has, when it is valid.
pub fn validate(source: impl Read, part_bytes: usize) -> Result<u64, TextError> {
    let mut parts = TextParts::new(source, part_bytes);
    while parts.next_part()?.is_some() {}
    Ok(parts.given_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts_of(bytes: &[u8], part_bytes: usize) -> Result<Vec<TextPart>, TextError> {
        let mut parts = TextParts::new(bytes, part_bytes);
        let mut all = Vec::new();
        while let Some(part) = parts.next_part()? {
            all.push(part);
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn the_parts_joined_up_are_the_text(text in any::<String>(), part_bytes in 4usize..20) {
            let parts = parts_of(text.as_bytes(), part_bytes).unwrap();
            let joined: String = parts.iter().map(|part| part.text.as_str()).collect();
            prop_assert_eq!(joined, text);
            prop_assert!(parts.iter().all(|part| part.text.len() <= part_bytes));
            let lasts: Vec<bool> = parts.iter().map(|part| part.last).collect();
            prop_assert_eq!(lasts.iter().position(|last| *last), Some(parts.len() - 1));
        }

        #[test]
        fn invalid_text_is_an_error_at_the_same_byte_as_in_one_piece(
            bytes in proptest::collection::vec(any::<u8>(), 0..40), part_bytes in 4usize..12,
        ) {
            match (std::str::from_utf8(&bytes), validate(&bytes[..], part_bytes)) {
                (Ok(_), read) => prop_assert_eq!(read.unwrap(), bytes.len() as u64),
                (Err(expected), Err(TextError::InvalidUtf8 { offset })) => {
                    prop_assert_eq!(offset, expected.valid_up_to() as u64);
                }
                (Err(_), other) => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn a_character_is_never_cut_in_two() {
        let parts = parts_of("abc\u{1f600}d".as_bytes(), 4).unwrap();
        let texts: Vec<&str> = parts.iter().map(|part| part.text.as_str()).collect();
        assert_eq!(texts, ["abc", "\u{1f600}", "d"]);
    }

    #[test]
    fn a_text_of_exactly_one_part_is_its_last() {
        let part = |text: &str, last| TextPart {
            text: text.to_owned(),
            last,
        };
        assert_eq!(parts_of(b"abcd", 4).unwrap(), [part("abcd", true)]);
        assert_eq!(parts_of(b"", 4).unwrap(), [part("", true)]);
        assert_eq!(parts_of(b"abcde", 4).unwrap(), [part("abcd", false), part("e", true)]);
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_invalid_there() {
        let error = parts_of(b"abcde\xf0\x9f", 4).unwrap_err();
        assert!(matches!(error, TextError::InvalidUtf8 { offset: 5 }), "{error}");
    }
}
