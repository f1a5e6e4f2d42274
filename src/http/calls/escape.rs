//! JSON text escaping, straight into an output buffer.
//!
//! It works on bytes: all that JSON escapes is ASCII, so a text may be cut anywhere and escaped piece by piece.

use bytes::{BufMut, BytesMut};

use crate::api::plain_bytes;

/// 0: stands for itself; `u`: `\u00XX`; otherwise the letter after the backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` escaped, without quotes.
pub fn escape_into(out: &mut BytesMut, text: &[u8]) {
    out.reserve(text.len());
    let mut rest = text;
    loop {
        let (plain, from) = rest.split_at(plain_bytes(rest));
        out.extend_from_slice(plain);
        let Some(&byte) = from.first() else {
            return;
        };
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = from.get(1..).unwrap_or_default();
    }
}

/// Appends `text` as a JSON string.
pub fn string_into(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    escape_into(out, text.as_bytes());
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_are_escaped_as_serde_json_does(text in "(?s).*", cut in 0usize..64) {
            let mut whole = BytesMut::new();
            string_into(&mut whole, &text);
            prop_assert_eq!(&whole[..], &serde_json::to_vec(&text).unwrap()[..]);
            let (left, right) = text.as_bytes().split_at(cut.min(text.len()));
            let mut pieces = BytesMut::from(&b"\""[..]);
            escape_into(&mut pieces, left);
            escape_into(&mut pieces, right);
            pieces.put_u8(b'"');
            prop_assert_eq!(pieces, whole);
        }
    }

    #[test]
    fn every_ascii_character_is_escaped_as_serde_json_does() {
        let text: String = (0..=0x7fu8).map(char::from).collect();
        let mut out = BytesMut::new();
        string_into(&mut out, &text);
        assert_eq!(&out[..], &serde_json::to_vec(&text).unwrap()[..]);
    }
}
