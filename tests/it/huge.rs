//! Huge values and lists go in and come out in bounded memory.
//!
//! At a size for every run of the tests; `just bench streaming` does the same with 1 GiB and a million values.

#[path = "../../benches/streaming/measure.rs"]
#[allow(dead_code, reason = "the benchmark shows more of it")]
mod measure;
#[path = "../../benches/node/mod.rs"]
mod node;

use node::{MIB, Node, setting};

/// Well above what logs and merges take (a shard's three logs of 8 MiB), well below what is stored.
const GROWTH_BYTES_MAX: u64 = 64 * MIB;

#[test]
fn a_huge_value_and_a_huge_list_are_stored_and_read_in_bounded_memory() {
    let value_bytes = setting("KV_STREAM_BYTES", 160 * MIB).unwrap();
    let values = setting("KV_STREAM_VALUES", 50_000).unwrap();
    let node = Node::start().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let measured = runtime.block_on(measure::measure(&node, value_bytes, values)).unwrap();
    for row in &measured.rows {
        let growth = row.growth_bytes(measured.first);
        println!("{}: {} MiB more, {:?}", row.what, growth / MIB, row.took);
        assert!(growth < GROWTH_BYTES_MAX, "{}: {} MiB more", row.what, growth / MIB);
    }
}
