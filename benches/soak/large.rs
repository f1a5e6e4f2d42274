//! Large values beside the load: stored from parts, read back, cleared.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kv_storage::bench::Payload;
use kv_storage::client::{Client, Page};

use super::node::{MIB, Node};

pub const VALUE_BYTES: u64 = 8 * MIB;
const PART_BYTES: u64 = MIB;
const PAUSE: Duration = Duration::from_secs(4);
const KEYS: u64 = 4;

/// Until `stop`; gives the number of values.
pub fn store_and_read(node: &Node, stop: &AtomicBool) -> anyhow::Result<u64> {
    let client = node.client()?;
    let payload = Payload::new("", PART_BYTES as usize, 3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            one(&client, &payload, count).await?;
            count += 1;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(count)
    })
}

async fn one(client: &Client, payload: &Payload, number: u64) -> anyhow::Result<()> {
    let key = format!("large-{}", number % KEYS);
    let parts = VALUE_BYTES / PART_BYTES;
    for index in 0..parts {
        let text = payload.value_text(number * parts + index);
        let request_id = format!("{number}-{index}");
        client.add_one(&key, text, index + 1 == parts, &request_id).await?;
    }
    let mut stream = client.get_value_stream(&key, Page::default()).await?;
    let mut bytes = 0;
    while let Some(piece) = stream.next_piece().await? {
        bytes += piece.text.len() as u64;
    }
    anyhow::ensure!(bytes == VALUE_BYTES, "{bytes} bytes came back of {VALUE_BYTES}");
    Ok(client.clear_key(&key).await?)
}
