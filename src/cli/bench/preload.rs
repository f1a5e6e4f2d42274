//! Gives the keys of a benchmark their lists before it starts.
//!
//! Invariant: a key that has as many values as asked for is left as it is, so that a benchmark can be run again.

use anyhow::Context;
use futures_util::{TryStreamExt, stream};

use crate::api::{Count, Operation, OperationTerms};
use crate::bench::Payload;
use crate::cli::progress;
use crate::client::Client;

/// Keys that are looked at in one request.
const KEYS_PER_BATCH: u64 = 500;
/// An add batch goes out when it has this many operations or bytes of values; both far below what a node takes.
const ADDS_PER_BATCH: usize = 2_000;
const BYTES_PER_BATCH: usize = 1024 * 1024;
/// Requests under way at once.
const CONCURRENT: usize = 8;

pub struct Preload<'a> {
    client: &'a Client,
    payload: &'a Payload,
    keys: u64,
    list_length: u64,
}

impl<'a> Preload<'a> {
    pub fn new(client: &'a Client, payload: &'a Payload, keys: u64, list_length: u64) -> Self {
        Self {
            client,
            payload,
            keys,
            list_length,
        }
    }

    pub async fn run(&self) -> anyhow::Result<()> {
        if self.list_length == 0 {
            self.client.count(&self.payload.key_text(0)).await?;
            return Ok(());
        }
        let bar = progress::count_bar(self.keys, "keys");
        let starts = (0..self.keys).step_by(KEYS_PER_BATCH as usize);
        stream::iter(starts.map(Ok::<_, anyhow::Error>))
            .try_for_each_concurrent(CONCURRENT, async |start| {
                let end = (start + KEYS_PER_BATCH).min(self.keys);
                self.fill(start, end).await?;
                bar.inc(end - start);
                Ok(())
            })
            .await?;
        bar.finish_and_clear();
        Ok(())
    }

    async fn fill(&self, start: u64, end: u64) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for (key, held) in (start..end).zip(self.counts(start, end).await?) {
            for index in held..self.list_length {
                batch.push(Operation::AddValue {
                    key: self.payload.key_text(key).into(),
                    value: self.payload.value_text(scattered(key, index)).into(),
                    finish_value: true,
                    request_id: None,
                    terms: OperationTerms::default(),
                });
                bytes += self.payload.value_bytes();
                if batch.len() >= ADDS_PER_BATCH || bytes >= BYTES_PER_BATCH {
                    self.send(std::mem::take(&mut batch)).await?;
                    bytes = 0;
                }
            }
        }
        self.send(batch).await
    }

    async fn counts(&self, start: u64, end: u64) -> anyhow::Result<Vec<u64>> {
        let count = |key| Operation::GetValue {
            key: self.payload.key_text(key).into(),
            offset: None,
            limit: None,
            count_only: true,
            terms: OperationTerms::default(),
        };
        let mut asked: Vec<_> = (start..end).map(count).collect();
        let results = self.client.batch(&mut asked).await?;
        let mut counts = Vec::with_capacity(results.len());
        for result in results {
            let count: Count = serde_json::from_value(result?).context("the node's count of a key")?;
            counts.push(count.count);
        }
        Ok(counts)
    }

    async fn send(&self, mut batch: Vec<Operation<'_>>) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        for result in self.client.batch(&mut batch).await? {
            result?;
        }
        Ok(())
    }
}

/// A number that looks random, for the choice of a value.
fn scattered(key: u64, index: u64) -> u64 {
    (key ^ index.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake_node::FakeNode;

    #[tokio::test]
    async fn every_key_gets_its_list_and_a_second_time_nothing() {
        let node = FakeNode::start();
        let payload = Payload::new("b-", 30, 1);
        let client = node.client();
        let preload = Preload::new(&client, &payload, 1_100, 3);
        for _ in 0..2 {
            preload.run().await.unwrap();
            for key in [0, 499, 500, 1_099] {
                let list = node.list(&payload.key_text(key));
                assert_eq!(list.len(), 3);
                assert!(list.iter().all(|value| value.len() == 30));
            }
        }
        assert!(node.list(&payload.key_text(1_100)).is_empty());
    }

    #[tokio::test]
    async fn a_list_that_is_shorter_is_filled_up() {
        let node = FakeNode::start();
        let payload = Payload::new("b-", 5, 1);
        let client = node.client();
        client.add_value(&payload.key_text(1), "first").await.unwrap();
        Preload::new(&client, &payload, 2, 2).run().await.unwrap();
        let list = node.list(&payload.key_text(1));
        assert_eq!((list.len(), list[0].as_str()), (2, "first"));
    }
}
