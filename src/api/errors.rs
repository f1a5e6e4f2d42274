//! What an error says.

use serde::{Deserialize, Serialize};

/// In the `detail` of each 503 after which the request may have taken effect, and of no other.
pub const MAYBE_APPLIED: &str = "may have taken effect";

/// Every error: `detail` is a sentence, or for 422 a list of [`FieldError`]. From status 500 on, `code` and `may_have_taken_effect` say for programs
/// what the sentence says for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub detail: Detail,
    #[serde(flatten)]
    pub outage: Option<Outage>,
}

/// What went wrong at the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    pub code: OutageCode,
    /// False when nothing was changed, for certain.
    pub may_have_taken_effect: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageCode {
    /// Too much is under way; less of it, or a little later, will do.
    Overloaded,
    /// The node cannot carry out anything yet.
    NotReady,
    ShuttingDown,
    /// The shard that owns the key is being reopened.
    ShardUnavailable,
    /// Fewer replicas answered than the consistency asks for.
    NoQuorum,
    DeadlineExceeded,
    /// In a batch: an earlier write to the same key failed.
    NotCarriedOut,
    DiskFull,
    DiskFailed,
    /// What was asked for is damaged on disk, and no replica could supply it.
    Damaged,
    /// A fault of the program, or nodes that do not understand each other.
    Internal,
    /// One that this program does not know.
    #[serde(other)]
    Unknown,
}

impl OutageCode {
    /// Those that a node gives.
    pub const NAMES: [&str; 11] = [
        "overloaded",
        "not_ready",
        "shutting_down",
        "shard_unavailable",
        "no_quorum",
        "deadline_exceeded",
        "not_carried_out",
        "disk_full",
        "disk_failed",
        "damaged",
        "internal",
    ];

    pub fn unchanged(self) -> Outage {
        Outage {
            code: self,
            may_have_taken_effect: false,
        }
    }

    pub fn in_doubt_if(self, may_have_taken_effect: bool) -> Outage {
        Outage {
            code: self,
            may_have_taken_effect,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detail {
    Message(String),
    Fields(Vec<FieldError>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// `["body", "key"]`, `["body", "operations", 3, "key"]`, …
    pub loc: Vec<serde_json::Value>,
    pub msg: String,
    #[serde(rename = "type")]
    pub kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_codes() {
        for name in OutageCode::NAMES {
            let code: OutageCode = serde_json::from_value(name.into()).unwrap();
            assert_ne!(code, OutageCode::Unknown, "{name}");
            assert_eq!(serde_json::to_value(code).unwrap(), name);
        }
        let unheard_of: OutageCode = serde_json::from_value("melted".into()).unwrap();
        assert_eq!(unheard_of, OutageCode::Unknown);
    }

    #[test]
    fn what_is_no_outage_has_its_detail_alone() {
        let refused = ErrorBody {
            detail: Detail::Message("no".to_owned()),
            outage: None,
        };
        let text = serde_json::to_string(&refused).unwrap();
        assert_eq!(text, r#"{"detail":"no"}"#);
        assert_eq!(serde_json::from_str::<ErrorBody>(&text).unwrap(), refused);
        let full = r#"{"detail":"full","code":"disk_full","may_have_taken_effect":false}"#;
        let outage = serde_json::from_str::<ErrorBody>(full).unwrap().outage;
        assert_eq!(outage, Some(OutageCode::DiskFull.unchanged()));
    }
}
