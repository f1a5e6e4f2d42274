//! Makes the checksums of a damaged file right again, as an attacker or a bug of the writer would: what lies behind a checksum is to
//! be checked too. The layouts are those of `store::log` and `store::segment::format`.

use std::ops::Range;

use kv_storage::store::log::LogKey;

const SEGMENT_HEADER_BYTES: usize = 24;
const BLOCK_HEADER_BYTES: usize = 4 /* crc */ + 1 /* codec */ + 4 /* raw length */ + 4 /* stored length */;
const TRAILER_BYTES: usize = 8 /* footer offset */ + 8 /* footer length */ + 4 /* crc */ + 8 /* magic */;
const LOG_HEADER_BYTES: usize = 512;
const RECORD_HEADER_BYTES: usize = 56;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
}

fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Where the footer of a segment lies, as its trailer says.
pub fn footer_range(file: &[u8]) -> Option<Range<usize>> {
    let trailer = file.len().checked_sub(TRAILER_BYTES)?;
    let start = u64_at(file, trailer)?;
    let end = start.checked_add(u64_at(file, trailer + 8)?)?;
    (start >= SEGMENT_HEADER_BYTES && end == trailer).then_some(start..end)
}

/// The stored blocks of a segment, one behind the other, as far as their lengths lead.
fn block_ranges(file: &[u8]) -> Vec<Range<usize>> {
    let end = footer_range(file).map_or(file.len(), |footer| footer.start);
    let mut ranges = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(data_bytes) = u32_at(file, at + 9) {
        let next = at + BLOCK_HEADER_BYTES + data_bytes as usize;
        if next > end {
            break;
        }
        ranges.push(at..next);
        at = next;
    }
    ranges
}

/// The checksum of a block covers where it belongs.
fn block(stored: &mut [u8], shard: u16, number: u64, offset: u64) {
    if stored.len() >= 4 {
        let mut crc = crc32c::crc32c(&shard.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
        put_crc(stored, 0, crc32c::crc32c_append(crc, &stored[4..]));
    }
}

pub fn segment(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let Some(footer) = footer_range(&file) else {
        return file;
    };
    let header_crc = crc32c::crc32c(&file[..20]);
    put_crc(&mut file, 20, header_crc);
    let shard = u16::from_le_bytes([file[10], file[11]]);
    let number = u64_at(&file, 12).unwrap_or_default() as u64;
    for range in block_ranges(&file) {
        let offset = range.start as u64;
        block(&mut file[range], shard, number, offset);
    }
    let mut crc = crc32c::crc32c(&file[..SEGMENT_HEADER_BYTES]);
    crc = crc32c::crc32c_append(crc, &file[footer.end..footer.end + 16]);
    crc = crc32c::crc32c_append(crc, &file[footer.clone()]);
    put_crc(&mut file, footer.end + 16, crc);
    file
}

/// Every record of a log, as far as their lengths lead.
pub fn log(file: &[u8], key: &LogKey) -> Vec<u8> {
    let mut file = file.to_vec();
    let mut at = LOG_HEADER_BYTES;
    while let Some(body_bytes) = u32_at(&file, at + 8) {
        let body = at + RECORD_HEADER_BYTES..at + RECORD_HEADER_BYTES + body_bytes as usize;
        if body.end > file.len() {
            break;
        }
        let body_crc = key.body_crc(at as u64, &file[body.clone()]);
        put_crc(&mut file, at + 4, body_crc);
        let header_crc = key.header_crc(at as u64, &file[at + 4..body.start]);
        put_crc(&mut file, at, header_crc);
        at = body.end.next_multiple_of(8);
    }
    file
}
