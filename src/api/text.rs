//! The inside of a JSON string.

/// Looked at at once: a few vector instructions.
const BLOCK_WORDS: usize = 4;

/// A byte of each.
const ONES: u64 = u64::MAX / 0xff;
const HIGH_BITS: u64 = ONES << 7;

/// How many bytes at the beginning of `text` stand for themselves inside a JSON string: all but quotes, backslashes and control characters do.
pub fn plain_bytes(text: &[u8]) -> usize {
    let (words, _) = text.as_chunks::<8>();
    let (blocks, _) = words.as_chunks::<BLOCK_WORDS>();
    let is_plain = |block: &&[[u8; 8]; BLOCK_WORDS]| block.iter().fold(0, |any, word| any | special(word)) == 0;
    let plain = blocks.iter().take_while(is_plain).count() * BLOCK_WORDS;
    let rest = words.get(plain..).unwrap_or_default();
    let plain = 8 * (plain + rest.iter().take_while(|word| special(word) == 0).count());
    let rest = text.get(plain..).unwrap_or_default();
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    plain + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Not zero if one of the bytes does not stand for itself. Eight at once, after "Determine if a word has a byte less than n" and "equal to n" of
/// Anderson's "Bit Twiddling Hacks": a byte that borrows from the next one is itself found, so that none is found where there is none.
fn special(word: &[u8; 8]) -> u64 {
    let word = u64::from_le_bytes(*word);
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_by_one(text: &[u8]) -> usize {
        let is_special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        text.iter().position(is_special).unwrap_or(text.len())
    }

    #[test]
    fn every_byte_is_found_wherever_it_is() {
        for length in [1, 8, 31, 32, 33, 40, 47, 71] {
            for (at, byte) in (0..length).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                // Beside a byte that is next to none of them, and one that all borrows stop at.
                for other in [b'a', 0xff] {
                    let mut text = vec![other; length];
                    text[at] = byte;
                    assert_eq!(plain_bytes(&text), one_by_one(&text), "{byte} at {at} of {length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_as_far_as_going_byte_by_byte_gets(text in prop::collection::vec(0x1e..=0x5du8, 0..90)) {
            // After the first one as well: most of such texts have several.
            for from in 0..text.len() {
                prop_assert_eq!(plain_bytes(&text[from..]), one_by_one(&text[from..]));
            }
        }
    }
}
