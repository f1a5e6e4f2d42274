//! The usage example of the original product's document: the same three calls, in Rust.

use crate::common::{ADMIN, ADMIN_PASSWORD, Home};
use kv_storage::client::Client;

#[tokio::test]
async fn the_usage_example_works_with_the_client_of_the_library() {
    let home = Home::new();
    let node = home.start();
    let client = Client::builder()
        .url(node.url())
        .user(ADMIN)
        .password(ADMIN_PASSWORD)
        .build()
        .unwrap();
    client.add_value("key", "value").await.unwrap();
    assert_eq!(client.get_value("key").await.unwrap(), ["value"]);
    client.add_value_part("key", "another ").await.unwrap();
    client.add_value("key", "value").await.unwrap();
    assert_eq!(client.get_value("key").await.unwrap(), ["value", "another value"]);
    client.clear_key("key").await.unwrap();
    assert!(client.get_value("key").await.unwrap().is_empty());
}
