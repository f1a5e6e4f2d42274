//! The outside of a segment file: header, block envelopes, trailer. All integers are little-endian.
//!
//! ```text
//! 0         magic "KVSSEG\r\n"                        8
//! 8         format version                           2   ─┐ these 24 bytes have this
//! 10        shard                                    2    │ meaning in every version
//! 12        segment number                           8    │
//! 20        crc32c of bytes 0..20                    4   ─┘
//! 24        data blocks, one right behind the other, each:
//!             crc32c                                 4   of: shard, number, block's offset, then all behind these 4 bytes, padding included
//!             codec: 0 raw, 1 LZ4, 2 raw and padded  1
//!             raw length                             4   of the data once it is decompressed
//!             stored length                          4   of all that follows in this block, padding included
//!             data                                       see `block.rs`
//!             padding, with codec 2 alone                zeroes up to a multiple of 4096 in the file
//! F         footer                                       see `footer.rs`
//! end-28    F: where the footer begins               8
//! end-20    footer length                            8
//! end-12    crc32c                                   4   of: the 24 bytes of the header, F, length, the footer
//! end-8     magic "KVSSEND\n"                        8
//! ```
//!
//! Unfinished if the file is shorter than header and trailer, or does not end with the trailer's magic.
//! Corrupt as a whole if: the header's magic or checksum is wrong; the footer does not lie exactly between the blocks and the
//! trailer; the footer's checksum is wrong; the footer breaks a rule of its own.
//! Corrupt as a block if: the checksum is wrong (that of a block of another file or place is); the codec is unknown; the stored
//! length is not what the index says; the raw length is larger than the footer says any block is, or than LZ4 can make of
//! the stored length; it does not decompress to exactly the raw length; a padding is longer than a sixteenth of the raw
//! length, rounded down, or not all zeroes; the data breaks a rule of its own.
//! The version is looked at once the header's checksum is right, and before anything else: a newer one is refused.
//!
//! Versions: 1; 2 has tags of request ids by block in its filter; 3 says in its footer what was collected; 4 has a filter for each of
//! several ranges of slots (see `footer.rs` for all three); 5 has codec 2, for blocks that do not compress, and so that the next one begins with a
//! page of the disk. All else is the same.

use bytes::Bytes;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::store::codec::{Cursor, Malformed};
use crate::types::BODY_BYTES_MAX;

pub const FORMAT_VERSION: u16 = 5;
/// The first version that is read.
pub(super) const OLDEST_VERSION: u16 = 1;
/// The first version whose filter tells in which block of a key a request id may be.
pub(super) const BLOCK_TAGS_VERSION: u16 = 2;
/// The first version whose footer says what was collected.
pub(super) const COLLECTED_VERSION: u16 = 3;
/// The first version that has filters for ranges of slots.
pub(super) const SLOT_FILTERS_VERSION: u16 = 4;
/// What every version begins with, and ends with.
pub const HEADER_MAGIC: &[u8; 8] = b"KVSSEG\r\n";
pub const TRAILER_MAGIC: &[u8; 8] = b"KVSSEND\n";

/// 8 /* magic */ + 2 /* version */ + 2 /* shard */ + 8 /* number */ + 4 /* crc */
pub const HEADER_BYTES: usize = 8 + 2 + 2 + 8 + 4;
/// 4 /* crc */ + 1 /* codec */ + 4 /* raw length */ + 4 /* stored length */
pub const BLOCK_HEADER_BYTES: usize = 4 + 1 + 4 + 4;
/// 8 /* footer offset */ + 8 /* footer length */ + 4 /* crc */ + 8 /* magic */
pub const TRAILER_BYTES: usize = 8 + 8 + 4 + 8;

/// What a block is cut at, raw: small enough that a cold read of one key is cheap, large enough to compress. With its envelope and what stands
/// around the runs it takes two pages of the disk's, and more only where one text alone is longer.
pub const BLOCK_BYTES_TARGET: usize = 2 * PAGE_BYTES - 64;
/// The disk is read in pages, and a block that begins with one lies in fewer of them.
const PAGE_BYTES: usize = 4096;
/// The largest raw block: the longest text there is, or a very long clear, and everything around it.
pub const BLOCK_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
/// LZ4 cannot make more than this many bytes of one.
const LZ4_RATIO_MAX: usize = 255;

const CODEC_RAW: u8 = 0;
const CODEC_LZ4: u8 = 1;
const CODEC_PADDED: u8 = 2;

/// Which file a header belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub version: u16,
    pub shard: u16,
    pub number: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.shard.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes a header of any version.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        if &cursor.array()? != HEADER_MAGIC {
            return Err(Malformed {
                what: "magic of the header",
            });
        }
        let header = Self {
            version: cursor.u16()?,
            shard: cursor.u16()?,
            number: cursor.u64()?,
        };
        if cursor.u32()? != crc32c::crc32c(&bytes[..20]) {
            return Err(Malformed {
                what: "checksum of the header",
            });
        }
        Ok(header)
    }
}

/// Where the footer lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    pub footer_offset: u64,
    pub footer_bytes: u64,
    pub crc: u32,
}

impl Trailer {
    /// The trailer of a footer in pieces.
    pub fn new(header: &[u8; HEADER_BYTES], footer_offset: u64, footer: &[impl AsRef<[u8]>]) -> Self {
        let mut trailer = Self {
            footer_offset,
            footer_bytes: footer.iter().map(|piece| piece.as_ref().len() as u64).sum(),
            crc: 0,
        };
        trailer.crc = trailer.checksum(header, footer);
        trailer
    }

    pub fn checksum(&self, header: &[u8; HEADER_BYTES], footer: &[impl AsRef<[u8]>]) -> u32 {
        let crc = crc32c::crc32c(header);
        let crc = crc32c::crc32c_append(crc, &self.footer_offset.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &self.footer_bytes.to_le_bytes());
        let append = |crc, piece: &_| crc32c::crc32c_append(crc, AsRef::as_ref(piece));
        footer.iter().fold(crc, append)
    }

    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..8].copy_from_slice(&self.footer_offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.footer_bytes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.crc.to_le_bytes());
        bytes[20..].copy_from_slice(TRAILER_MAGIC);
        bytes
    }

    /// None when these bytes are no trailer.
    pub fn decode(bytes: &[u8; TRAILER_BYTES]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let trailer = Self {
            footer_offset: cursor.u64().ok()?,
            footer_bytes: cursor.u64().ok()?,
            crc: cursor.u32().ok()?,
        };
        (&cursor.array().ok()? == TRAILER_MAGIC).then_some(trailer)
    }

    /// Whether the footer ends where the trailer of a file of this length begins, and leaves room for the header.
    pub fn fits(&self, file_bytes: u64) -> bool {
        let end = self.footer_offset.checked_add(self.footer_bytes);
        self.footer_offset >= HEADER_BYTES as u64 && end == file_bytes.checked_sub(TRAILER_BYTES as u64)
    }
}

/// Where a block lies: shard, segment and offset. Its checksum covers this, so that no block passes for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockAddress {
    pub shard: u16,
    pub number: u64,
    pub offset: u64,
}

impl BlockAddress {
    fn checksum(&self, covered: &[u8]) -> u32 {
        let mut address = [0; 18];
        address[..2].copy_from_slice(&self.shard.to_le_bytes());
        address[2..10].copy_from_slice(&self.number.to_le_bytes());
        address[10..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&address), covered)
    }
}

/// Most that a raw block takes with its envelope while it is being sealed.
pub fn sealed_bytes_max(raw_bytes: usize) -> usize {
    BLOCK_HEADER_BYTES + get_maximum_output_size(raw_bytes).max(raw_bytes + padding_max(raw_bytes))
}

/// So much of the disk is given for the next block to begin with a page; otherwise it begins where this one ends.
fn padding_max(raw_bytes: usize) -> usize {
    raw_bytes / 16
}

/// The padding of a block that is stored raw and that would end at `end` without it.
fn padding(end: u64, raw_bytes: usize) -> usize {
    let rest = (end.next_multiple_of(PAGE_BYTES as u64) - end) as usize;
    if rest <= padding_max(raw_bytes) { rest } else { 0 }
}

/// Puts raw blocks into their envelopes; keeps what the compression needs from one to the next.
#[derive(Default)]
pub struct Sealer {
    table: CompressTable,
}

impl Sealer {
    /// Appends the block; gives its length with the envelope.
    pub fn put_block(&mut self, out: &mut Vec<u8>, address: BlockAddress, raw: &[u8]) -> u32 {
        let start = out.len();
        let data_start = start + BLOCK_HEADER_BYTES;
        // Compressed where it goes to: a long text lies in memory often enough without a buffer in between.
        out.resize(start + sealed_bytes_max(raw.len()), 0);
        let codec = match self.compress(raw, &mut out[data_start..]) {
            Some(length) => {
                out.truncate(data_start + length);
                CODEC_LZ4
            }
            None => {
                out.truncate(data_start);
                out.extend_from_slice(raw);
                let end = address.offset + (out.len() - start) as u64;
                let padding = padding(end, raw.len());
                out.resize(out.len() + padding, 0);
                if padding > 0 { CODEC_PADDED } else { CODEC_RAW }
            }
        };
        let data_bytes = (out.len() - data_start) as u32;
        let envelope = &mut out[start..data_start];
        envelope[4] = codec;
        envelope[5..9].copy_from_slice(&(raw.len() as u32).to_le_bytes());
        envelope[9..].copy_from_slice(&data_bytes.to_le_bytes());
        let crc = address.checksum(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        (out.len() - start) as u32
    }

    /// None unless it saves at least one byte in eight.
    fn compress(&mut self, raw: &[u8], out: &mut [u8]) -> Option<usize> {
        let length = compress_into_with_table(raw, out, &mut self.table).ok()?;
        (length <= raw.len() - raw.len() / 8).then_some(length)
    }
}

/// The lengths and the codec that stand in an envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    pub crc: u32,
    pub codec: u8,
    pub raw_bytes: u32,
    pub data_bytes: u32,
}

impl Envelope {
    pub fn decode(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            crc: cursor.u32()?,
            codec: cursor.u8()?,
            raw_bytes: cursor.u32()?,
            data_bytes: cursor.u32()?,
        })
    }
}

/// Takes a block out of its envelope, `stored`, which must be exactly the block. `raw_bytes_max` is what the footer says that no block
/// is larger than.
pub fn open_block(stored: &Bytes, address: BlockAddress, raw_bytes_max: usize) -> Result<Bytes, Malformed> {
    let mut cursor = Cursor::new(stored);
    let envelope = Envelope::decode(&mut cursor)?;
    if envelope.data_bytes as usize != cursor.remaining() {
        return Err(Malformed {
            what: "stored length of a block",
        });
    }
    if address.checksum(&stored[4..]) != envelope.crc {
        return Err(Malformed {
            what: "checksum of a block",
        });
    }
    let data = stored.slice(BLOCK_HEADER_BYTES..);
    let raw_bytes = envelope.raw_bytes as usize;
    let bound = raw_bytes_max.min(BLOCK_BYTES_MAX);
    let wrong = Malformed {
        what: "raw length of a block",
    };
    match envelope.codec {
        _ if raw_bytes > bound => Err(wrong),
        CODEC_RAW if raw_bytes == data.len() => Ok(data),
        CODEC_PADDED if raw_bytes <= data.len() => {
            let padding = &data[raw_bytes..];
            if padding.len() > padding_max(raw_bytes) || padding.iter().any(|&byte| byte != 0) {
                return Err(Malformed {
                    what: "padding of a block",
                });
            }
            Ok(data.slice(..raw_bytes))
        }
        CODEC_LZ4 if raw_bytes <= data.len().saturating_mul(LZ4_RATIO_MAX) => {
            let mut raw = vec![0; raw_bytes];
            match decompress_into(&data, &mut raw) {
                Ok(length) if length == raw_bytes => Ok(Bytes::from(raw)),
                _ => Err(Malformed { what: "LZ4 data" }),
            }
        }
        CODEC_RAW | CODEC_LZ4 | CODEC_PADDED => Err(wrong),
        _ => Err(Malformed {
            what: "codec of a block",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: BlockAddress = BlockAddress {
        shard: 1,
        number: 2,
        offset: 24,
    };

    fn sealed(raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Sealer::default().put_block(&mut out, ADDRESS, raw);
        out
    }

    /// A block with this envelope, whose checksum is right.
    fn forged(codec: u8, raw_bytes: u32, data: &[u8]) -> Bytes {
        let mut block = vec![0; 4];
        block.push(codec);
        block.extend_from_slice(&raw_bytes.to_le_bytes());
        block.extend_from_slice(&(data.len() as u32).to_le_bytes());
        block.extend_from_slice(data);
        let crc = ADDRESS.checksum(&block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        block.into()
    }

    fn open(stored: impl Into<Bytes>, max: usize) -> Result<Bytes, &'static str> {
        open_block(&stored.into(), ADDRESS, max).map_err(|error| error.what)
    }

    #[test]
    fn a_block_comes_back_compressed_or_not() {
        let (same, mixed) = (
            vec![7; 5000],
            (0..5000u32).map(|i| ((i * i) >> 3) as u8).collect::<Vec<_>>(),
        );
        assert!(sealed(&same).len() < 100);
        for raw in [same, mixed, vec![1, 2, 3]] {
            assert_eq!(open(sealed(&raw), 5000).unwrap(), raw);
        }
    }

    #[test]
    fn a_block_of_another_place_or_file_does_not_pass() {
        let stored = Bytes::from(sealed(b"block"));
        for address in [
            BlockAddress { shard: 2, ..ADDRESS },
            BlockAddress { number: 3, ..ADDRESS },
            BlockAddress { offset: 25, ..ADDRESS },
        ] {
            assert!(open_block(&stored, address, 100).is_err());
        }
    }

    #[test]
    fn each_rule_of_the_envelope_is_kept() {
        let good = sealed(&[9; 1000]);
        assert_eq!(
            open(good[..good.len() - 1].to_vec(), 1000),
            Err("stored length of a block")
        );
        assert_eq!(open(good, 999), Err("raw length of a block"));
        assert_eq!(open(forged(3, 3, b"abc"), 100), Err("codec of a block"));
        assert_eq!(open(forged(0, 4, b"abc"), 100), Err("raw length of a block"));
        assert_eq!(open(forged(1, 4 * 255, b"abc"), 10_000), Err("raw length of a block"));
        assert_eq!(open(forged(1, 100, &[0x30, 1, 2, 3]), 10_000), Err("LZ4 data"));
        assert_eq!(
            open(forged(0, u32::MAX, b"abc"), usize::MAX),
            Err("raw length of a block")
        );
    }

    /// Bytes that do not compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(next).collect()
    }

    #[test]
    fn a_block_that_ends_shortly_before_a_page_is_padded_to_it() {
        let raw = noise(BLOCK_BYTES_TARGET);
        let (mut out, mut address) = (Vec::new(), ADDRESS);
        for blocks in 1..=3 {
            let stored = Sealer::default().put_block(&mut out, address, &raw);
            let bytes = Bytes::copy_from_slice(&out[out.len() - stored as usize..]);
            assert_eq!(open_block(&bytes, address, raw.len()).unwrap(), raw);
            address.offset += u64::from(stored);
            assert_eq!(address.offset, blocks * 2 * PAGE_BYTES as u64);
        }
        // Half of a page would be too much to give.
        let stored = Sealer::default().put_block(&mut out, address, &noise(6_000));
        assert_eq!(stored as usize, 6_000 + BLOCK_HEADER_BYTES);
    }

    #[test]
    fn a_padding_is_short_and_zero() {
        let raw = noise(160);
        let padded = |padding: &[u8]| forged(CODEC_PADDED, 160, &[&raw, padding].concat());
        assert_eq!(open(padded(&[0; 10]), 200).unwrap(), raw);
        assert_eq!(open(padded(&[0; 11]), 200), Err("padding of a block"));
        assert_eq!(open(padded(&[0, 0, 1]), 200), Err("padding of a block"));
        assert_eq!(open(forged(CODEC_PADDED, 161, &raw), 200), Err("raw length of a block"));
    }

    #[test]
    fn every_bit_of_header_and_block_counts() {
        let header = Header {
            version: 1,
            shard: 3,
            number: 9,
        };
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err());
        }
        let good = sealed(b"some data");
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(bytes, 100).is_err());
        }
    }
}
