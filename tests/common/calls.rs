//! The calls of the API, as one user makes them.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::http::{Response, send};

#[derive(Clone)]
pub struct Caller {
    pub addr: SocketAddr,
    pub name: String,
    pub hash: String,
}

impl Caller {
    pub fn new(addr: SocketAddr, name: &str, hash: &str) -> Self {
        Self {
            addr,
            name: name.to_owned(),
            hash: hash.to_owned(),
        }
    }

    /// The same user at another node, or at the same one after a restart.
    pub fn at(&self, addr: SocketAddr) -> Self {
        Self { addr, ..self.clone() }
    }

    /// `body` with this user's credentials.
    pub fn body(&self, mut body: Value) -> Vec<u8> {
        body["user"] = json!({"user_id": self.name, "password_hash": self.hash});
        body.to_string().into_bytes()
    }

    pub fn try_post(&self, path: &str, body: Value) -> io::Result<Response> {
        send(self.addr, "POST", path, &self.body(body))
    }

    pub fn post(&self, path: &str, body: Value) -> Response {
        self.try_post(path, body).unwrap()
    }

    /// A call that must succeed; its answer.
    pub fn call(&self, path: &str, body: Value) -> Value {
        let response = self.post(path, body);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    pub fn add(&self, key: &str, value: &str) {
        let answer = self.call("/add_value", json!({"key": key, "value": value}));
        assert_eq!(answer, json!({"status": "OK"}));
    }

    pub fn add_part(&self, key: &str, value: &str) {
        let answer = self.call("/add_value", json!({"key": key, "value": value, "finish_value": false}));
        assert_eq!(answer, json!({"status": "IN_PROGRESS"}));
    }

    pub fn get(&self, key: &str) -> Vec<String> {
        let answer = self.call("/get_value", json!({"key": key}));
        assert_eq!(answer["key"], key);
        strings(&answer["value"])
    }

    pub fn count(&self, key: &str) -> u64 {
        let answer = self.call("/get_value", json!({"key": key, "count_only": true}));
        answer["count"].as_u64().unwrap()
    }

    pub fn clear(&self, key: &str) {
        let answer = self.call("/clear_key", json!({"key": key}));
        assert_eq!(answer, json!({"status": "OK"}));
    }

    /// Every key, by pages of `limit`.
    pub fn keys(&self, prefix: &str, limit: u64) -> Vec<String> {
        let mut keys = Vec::new();
        let mut body = json!({"prefix": prefix, "limit": limit});
        loop {
            let page = self.call("/list_keys", body.clone());
            keys.extend(strings(&page["keys"]));
            match page.get("after") {
                Some(after) if !after.is_null() => body["after"] = after.clone(),
                _ => return keys,
            }
        }
    }

    pub fn add_user(&self, name: &str, hash: &str) {
        self.call("/users/add", json!({"name": name, "password_hash": hash}));
    }

    pub fn remove_user(&self, name: &str) {
        self.call("/users/remove", json!({"name": name}));
    }
}

pub fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("not a list: {list}"));
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}
