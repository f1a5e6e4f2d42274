use super::*;

/// Lists of four, as `count` keys of 10 bytes, one user, values of `text_bytes` that do not compress.
fn lists(count: u64, text_bytes: usize) -> Vec<KeyedOp> {
    let mut state = 1u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 20
    };
    let mut entries = Vec::new();
    for key in 0..count {
        let mut times: Vec<u64> = (0..4).map(|_| NOW_MS + random() % 3_600_000).collect();
        times.sort_unstable();
        for time in times {
            let text: String = (0..text_bytes)
                .map(|_| char::from(b' ' + (random() % 94) as u8))
                .collect();
            let op = op(
                0xfeed_0000_0000_0001,
                1 + random() % 10_000,
                time << 16,
                Body::Value(text.as_str().into()),
            );
            entries.push(keyed((key / 100) as u16, "demo", &format!("key-{key:06}"), op));
        }
    }
    sorted(entries)
}

#[test]
fn an_op_of_a_short_list_costs_few_bytes_beside_its_text() {
    let entries = lists(2000, 30);
    let segment = write(&MemoryDisk::new(), &entries, BLOCK_BYTES_TARGET, &cache());
    let stats = segment.stats();
    let key_bytes = stats.keys * (10 + 4 + 12);
    let covered = segment.covered().count();
    let beside = segment.file_bytes().saturating_sub(stats.text_bytes + key_bytes) as f64 / stats.ops as f64;
    // The covered clock's scattered sequences are part of it here; in use they are dense ranges.
    assert!(covered > 0 && beside < 8.0, "{beside} bytes an op");
}

#[test]
fn index_and_filter_take_few_bytes_of_memory_per_key() {
    let entries = lists(8000, 100);
    let segment = write(&MemoryDisk::new(), &entries, BLOCK_BYTES_TARGET, &cache());
    let keys = segment.stats().keys as f64;
    let index = segment.footer.index.memory_bytes() as f64 / keys;
    let filter = segment.footer.filters.memory_bytes() as f64 / keys;
    assert!(
        index + filter <= 2.0,
        "{index} bytes of index and {filter} of filter a key, {} blocks",
        segment.block_count()
    );
}

#[test]
fn text_that_repeats_is_compressed() {
    let entries: Vec<_> = (1..=5000)
        .map(|seq| keyed(5, "u", &format!("k{seq:05}"), value(seq, &"words and ".repeat(20))))
        .collect();
    let segment = write(&MemoryDisk::new(), &entries, BLOCK_BYTES_TARGET, &cache());
    assert!(segment.file_bytes() < segment.stats().text_bytes / 4);
}
