//! A long value goes in several requests: how it is cut, and what each is called.

/// Longest text that is sent in one request; longer values go in parts. JSON may write a byte as six, and even then the body
/// stays below the limit of one request.
pub const PART_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(PART_BYTES_MAX * 6 + crate::types::KEY_BYTES_MAX * 6 + 8192 < crate::types::BODY_BYTES_MAX);
/// The longest character: nothing shorter can be cut anywhere.
const PART_BYTES_MIN: usize = 4;

/// The request id of part number `index` of an add: the first one's is the add's own. The others are hashes: as short for the longest
/// id, and none that somebody would give to another add.
pub fn part_request_id(request_id: &str, index: u64) -> String {
    if index == 0 {
        return request_id.to_owned();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(request_id.len() as u64).to_le_bytes());
    hasher.update(request_id.as_bytes());
    hasher.update(&index.to_le_bytes());
    format!("part/{}", hasher.finalize().to_hex())
}

/// The text in parts of at most so many bytes, cut between characters; one empty part for an empty text.
pub(super) fn split_parts(text: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    let bytes_max = bytes_max.clamp(PART_BYTES_MIN, PART_BYTES_MAX);
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, tail) = text.split_at(text.floor_char_boundary(bytes_max));
        rest = (!tail.is_empty()).then_some(tail);
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_between_characters_and_an_empty_text_is_one_part() {
        let parts_of = |text, bytes_max| split_parts(text, bytes_max).collect::<Vec<&str>>();
        assert_eq!(parts_of("", PART_BYTES_MAX), [""]);
        let text = format!("a{}", "\u{e9}".repeat(PART_BYTES_MAX));
        let parts = parts_of(&text, usize::MAX);
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().all(|part| part.len() <= PART_BYTES_MAX));
        assert_eq!(parts.len(), 3);
        assert_eq!(parts_of("abcdefghi", 4), ["abcd", "efgh", "i"]);
        assert_eq!(parts_of("\u{1f600}\u{1f600}", 1), ["\u{1f600}", "\u{1f600}"]);
    }
}
