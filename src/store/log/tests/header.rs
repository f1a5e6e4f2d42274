//! The header of a log, in each of its versions.

use super::*;

/// With the checksum of the header's beginning made right.
fn with_version(header: &[u8; HEADER_BYTES], version: u8) -> [u8; HEADER_BYTES] {
    let mut changed = *header;
    changed[4] = version;
    let crc = crc32c::crc32c(&changed[..HEADER_START_BYTES]);
    changed[HEADER_START_BYTES..HEADER_START_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
    changed
}

#[test]
fn the_header_comes_back_and_damage_or_a_newer_version_is_told() {
    for (secret, used_bytes) in [
        (None, HEADER_START_BYTES + 4),
        (Some(SECRET), HEADER_START_BYTES + 4 + 16 + 4),
    ] {
        let header = LogHeader {
            shard: 3,
            number: 77,
            previous: Previous { number: 76, end: 4096 },
            secret,
        };
        let bytes = header.encode();
        assert_eq!(LogHeader::decode(&bytes), Ok(header));
        for at in 0..used_bytes {
            let mut flipped = bytes;
            flipped[at] ^= 4;
            assert_eq!(LogHeader::decode(&flipped), Err(HeaderError::Damaged));
            assert!(LogHeader::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        // Whatever a newer one has behind it.
        let newer = with_version(&bytes, 9);
        assert_eq!(LogHeader::decode(&newer), Err(HeaderError::NewerVersion(9)));
    }
}

#[test]
fn the_first_version_of_the_header_said_no_more_and_no_less_than_the_second() {
    let header = LogHeader {
        shard: 3,
        number: 77,
        previous: Previous { number: 76, end: 4096 },
        secret: None,
    };
    assert_eq!(LogHeader::decode(&with_version(&header.encode(), 1)), Ok(header));
}

#[test]
fn a_log_of_a_version_without_secrets_is_sealed_as_it_always_was() {
    let (file, offsets) = build_with(&[1], NUMBER, None);
    let [offset, ..] = offsets[..] else { panic!() };
    let mut seed = crc32c::crc32c(&NUMBER.to_le_bytes());
    seed = crc32c::crc32c_append(seed, &offset.to_le_bytes());
    let record = &file[offset as usize..];
    let body_bytes = u32::from_le_bytes(*record[8..].first_chunk().unwrap()) as usize;
    let body = &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body_bytes];
    assert_eq!(record[4..8], crc32c::crc32c_append(seed, body).to_le_bytes());
    let header = &record[4..RECORD_HEADER_BYTES];
    assert_eq!(record[..4], crc32c::crc32c_append(seed, header).to_le_bytes());
    let scan = scan(&file.into(), &LogKey::without_secret(NUMBER), None);
    assert_eq!(seqs(&scan), [1]);
}
