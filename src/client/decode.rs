//! Reads `{"key":…, "value":["…", …]}` piece by piece, as it arrives.
//!
//! Invariant: whatever the chunks it is fed with, the pieces joined up are the strings of the array, and `finish` is Ok only
//! after a whole object. Memory is bounded by the largest chunk, not by the values.

use crate::api::plain_bytes;

/// Longest member name or key that is kept; longer names are some other member, and a longer key is an error.
const NAME_BYTES_MAX: usize = crate::types::KEY_BYTES_MAX;
/// Deepest nesting that is skipped over in members that mean nothing here.
const SKIP_DEPTH_MAX: usize = 128;

/// A piece of one value; the last piece of each value says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuePiece {
    pub text: String,
    pub ends_value: bool,
}

/// Where and why the bytes were not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct DecodeError {
    pub what: &'static str,
    /// Bytes since the first that was fed.
    pub offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Name,
    Key,
    Element,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    FirstName,
    NextName,
    Colon,
    MemberValue,
    /// Inside a string that is decoded.
    Text(Target, Escape),
    FirstElement,
    NextElement,
    AfterElement,
    AfterMember,
    /// Inside a value that means nothing here.
    Skip {
        depth: usize,
        in_string: bool,
        escaped: bool,
    },
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    /// `\u` and this many digits; `high` is the surrogate that waits for its other half.
    Hex {
        digits: u8,
        unit: u16,
        high: Option<u16>,
    },
    /// A high surrogate was read: only `\u` may follow.
    LowBackslash(u16),
    LowU(u16),
}

/// The decoder; feed it every chunk, then call [`finish`](Self::finish).
#[derive(Debug)]
pub struct ValueDecoder {
    state: State,
    /// Decoded bytes of the string at hand; may end in the middle of a character.
    text: Vec<u8>,
    name: String,
    key: Option<String>,
    seen_value: bool,
    consumed: u64,
}

impl Default for ValueDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ValueDecoder {
    pub fn new() -> Self {
        Self {
            state: State::Start,
            text: Vec::new(),
            name: String::new(),
            key: None,
            seen_value: false,
            consumed: 0,
        }
    }

    /// The `key`, once it was read.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Takes the next bytes and appends to `out` what they hold.
    pub fn feed(&mut self, chunk: &[u8], out: &mut Vec<ValuePiece>) -> Result<(), DecodeError> {
        let mut rest = chunk;
        while let Some(&byte) = rest.first() {
            let taken = match self.state {
                State::Text(target, Escape::None) => self.plain_text(target, rest, out),
                _ => self.step(byte, out).map(|()| 1),
            }
            .map_err(|what| self.error(what))?;
            self.consumed += taken as u64;
            rest = rest.get(taken..).unwrap_or_default();
        }
        if let State::Text(Target::Element, _) = self.state {
            self.flush(false, out).map_err(|what| self.error(what))?;
        }
        Ok(())
    }

    /// Ok when a whole object with its `value` was read.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.state != State::End {
            return Err(self.error("it ends too early"));
        }
        if !self.seen_value {
            return Err(self.error("there is no \"value\""));
        }
        Ok(())
    }

    fn error(&self, what: &'static str) -> DecodeError {
        DecodeError {
            what,
            offset: self.consumed,
        }
    }

    /// Copies what needs no decoding; returns the bytes taken, at least one.
    fn plain_text(&mut self, target: Target, bytes: &[u8], out: &mut Vec<ValuePiece>) -> Result<usize, &'static str> {
        let plain = plain_bytes(bytes);
        if plain > 0 {
            self.push(target, bytes.get(..plain).unwrap_or_default())?;
            return Ok(plain);
        }
        match bytes.first() {
            Some(b'"') => self.end_text(target, out)?,
            Some(b'\\') => self.state = State::Text(target, Escape::Backslash),
            _ => return Err("a control character inside a string"),
        }
        Ok(1)
    }

    fn push(&mut self, target: Target, bytes: &[u8]) -> Result<(), &'static str> {
        if target != Target::Element && self.text.len() + bytes.len() > NAME_BYTES_MAX {
            return match target {
                Target::Key => Err("the key is too long"),
                // Such a name is no member of this format: what stands for it must only differ from those that are.
                _ => {
                    self.text.clear();
                    self.text.resize(NAME_BYTES_MAX, b'?');
                    Ok(())
                }
            };
        }
        self.text.extend_from_slice(bytes);
        Ok(())
    }

    fn push_char(&mut self, target: Target, char: char) -> Result<(), &'static str> {
        self.state = State::Text(target, Escape::None);
        self.push(target, char.encode_utf8(&mut [0; 4]).as_bytes())
    }

    fn end_text(&mut self, target: Target, out: &mut Vec<ValuePiece>) -> Result<(), &'static str> {
        if target == Target::Element {
            self.state = State::AfterElement;
            return self.flush(true, out);
        }
        let text = String::from_utf8(std::mem::take(&mut self.text)).map_err(|_| "invalid UTF-8")?;
        if target == Target::Name {
            self.name = text;
            self.state = State::Colon;
        } else {
            self.key = Some(text);
            self.state = State::AfterMember;
        }
        Ok(())
    }

    /// Hands on the text so far, but for the start of a character whose end has not arrived.
    fn flush(&mut self, ends_value: bool, out: &mut Vec<ValuePiece>) -> Result<(), &'static str> {
        let bytes = std::mem::take(&mut self.text);
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                if ends_value || error.utf8_error().error_len().is_some() {
                    return Err("invalid UTF-8");
                }
                let mut bytes = error.into_bytes();
                self.text = bytes.split_off(valid);
                String::from_utf8(bytes).map_err(|_| "invalid UTF-8")?
            }
        };
        if ends_value || !text.is_empty() {
            out.push(ValuePiece { text, ends_value });
        }
        Ok(())
    }

    /// One byte outside of plain text.
    fn step(&mut self, byte: u8, out: &mut Vec<ValuePiece>) -> Result<(), &'static str> {
        if let State::Text(target, escape) = self.state {
            return self.escape(target, escape, byte);
        }
        if let State::Skip {
            depth,
            in_string,
            escaped,
        } = self.state
        {
            return self.skip(depth, in_string, escaped, byte, out);
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(());
        }
        self.state = match (self.state, byte) {
            (State::Start, b'{') => State::FirstName,
            (State::FirstName | State::NextName, b'"') => State::Text(Target::Name, Escape::None),
            (State::FirstName | State::AfterMember, b'}') => State::End,
            (State::Colon, b':') => State::MemberValue,
            (State::MemberValue, _) => return self.member(byte, out),
            (State::FirstElement | State::NextElement, b'"') => State::Text(Target::Element, Escape::None),
            (State::FirstElement | State::AfterElement, b']') => State::AfterMember,
            (State::AfterElement, b',') => State::NextElement,
            (State::AfterMember, b',') => State::NextName,
            (State::FirstElement | State::NextElement, _) => return Err("a value that is not a string"),
            (State::End, _) => return Err("something after the end of the object"),
            _ => return Err("unexpected character"),
        };
        Ok(())
    }

    /// The first byte of a member's value.
    fn member(&mut self, byte: u8, out: &mut Vec<ValuePiece>) -> Result<(), &'static str> {
        match (self.name.as_str(), byte) {
            ("value", _) if self.seen_value => return Err("a second \"value\""),
            ("key", _) if self.key.is_some() => return Err("a second \"key\""),
            ("value", b'[') => {
                self.seen_value = true;
                self.state = State::FirstElement;
            }
            ("value", _) => return Err("\"value\" is not an array"),
            ("key", b'"') => self.state = State::Text(Target::Key, Escape::None),
            ("key", _) => return Err("\"key\" is not a string"),
            (_, b',' | b'}' | b']' | b':') => return Err("a member without a value"),
            _ => return self.skip(0, false, false, byte, out),
        }
        Ok(())
    }

    fn skip(
        &mut self,
        depth: usize,
        in_string: bool,
        escaped: bool,
        byte: u8,
        out: &mut Vec<ValuePiece>,
    ) -> Result<(), &'static str> {
        let skip = |depth, in_string, escaped| State::Skip {
            depth,
            in_string,
            escaped,
        };
        self.state = match byte {
            _ if in_string && escaped => skip(depth, true, false),
            b'\\' if in_string => skip(depth, true, true),
            b'"' if in_string && depth == 0 => State::AfterMember,
            b'"' => skip(depth, !in_string, false),
            _ if in_string => skip(depth, true, false),
            b'{' | b'[' if depth == SKIP_DEPTH_MAX => return Err("nested too deeply"),
            b'{' | b'[' => skip(depth + 1, false, false),
            b'}' | b']' if depth == 1 => State::AfterMember,
            b'}' | b']' if depth > 1 => skip(depth - 1, false, false),
            // A number or word ends where the next member begins or the object ends.
            b',' | b'}' | b']' if depth == 0 => {
                self.state = State::AfterMember;
                return self.step(byte, out);
            }
            _ => skip(depth, false, false),
        };
        Ok(())
    }

    fn escape(&mut self, target: Target, escape: Escape, byte: u8) -> Result<(), &'static str> {
        let next = match escape {
            Escape::None => return Err("unexpected character"),
            Escape::Backslash => {
                let char = match byte {
                    b'"' | b'\\' | b'/' => byte as char,
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'u' => {
                        self.state = State::Text(target, hex(None));
                        return Ok(());
                    }
                    _ => return Err("an unknown escape"),
                };
                return self.push_char(target, char);
            }
            Escape::LowBackslash(high) if byte == b'\\' => Escape::LowU(high),
            Escape::LowU(high) if byte == b'u' => hex(Some(high)),
            Escape::LowBackslash(_) | Escape::LowU(_) => return Err("half of a surrogate pair"),
            Escape::Hex { digits, unit, high } => {
                let digit = (byte as char).to_digit(16).ok_or("an escape that is not hexadecimal")?;
                let unit = unit << 4 | digit as u16;
                if digits < 3 {
                    let digits = digits + 1;
                    Escape::Hex { digits, unit, high }
                } else {
                    return self.code_unit(target, unit, high);
                }
            }
        };
        self.state = State::Text(target, next);
        Ok(())
    }

    /// A whole `\uXXXX`.
    fn code_unit(&mut self, target: Target, unit: u16, high: Option<u16>) -> Result<(), &'static str> {
        match (high, unit) {
            (None, 0xd800..=0xdbff) => {
                self.state = State::Text(target, Escape::LowBackslash(unit));
                Ok(())
            }
            (None, _) => self.push_char(target, char::from_u32(unit.into()).ok_or("half of a surrogate pair")?),
            (Some(high), 0xdc00..=0xdfff) => {
                let code = 0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(unit) - 0xdc00);
                self.push_char(target, char::from_u32(code).ok_or("half of a surrogate pair")?)
            }
            (Some(_), _) => Err("half of a surrogate pair"),
        }
    }
}

fn hex(high: Option<u16>) -> Escape {
    Escape::Hex {
        digits: 0,
        unit: 0,
        high,
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
