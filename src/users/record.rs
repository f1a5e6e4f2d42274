//! A user's record: one JSON value, the last of the list under the system user's key `user/<name>`.

use serde::{Deserialize, Serialize};

use crate::types::{Key, LengthError, UserId};

use super::hashing::StoredHash;

/// What every record's key starts with; the user's name follows.
pub(super) const KEY_PREFIX: &str = "user/";
const VERSION: u64 = 1;

pub(super) fn key_of(user: &UserId) -> Result<Key, LengthError> {
    Key::new(&format!("{KEY_PREFIX}{}", user.as_str()))
}

/// The user whose record is under this key.
pub(super) fn user_of(key: &Key) -> Option<UserId> {
    UserId::new(key.as_str().strip_prefix(KEY_PREFIX)?).ok()
}

pub(super) enum Record {
    Active {
        stored: StoredHash,
        admin: bool,
    },
    /// Removal has begun; it ends with the record itself.
    Removing,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("it is not the JSON of a record: {0}")]
    Form(String),
    #[error("it has version {0}; this program reads version {VERSION}")]
    Version(u64),
    #[error("it names another user")]
    Name,
    #[error("its argon2 is missing or unusable: {0}")]
    Argon2(String),
}

#[derive(Deserialize)]
struct AnyVersion {
    v: u64,
}

#[derive(Serialize, Deserialize)]
struct Form {
    v: u64,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2: Option<String>,
    #[serde(default)]
    admin: bool,
    state: State,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Active,
    Removing,
}

impl Record {
    pub fn encode(&self, user: &UserId) -> Result<String, RecordError> {
        let (argon2, admin, state) = match self {
            Self::Active { stored, admin } => (Some(stored.as_str().to_owned()), *admin, State::Active),
            Self::Removing => (None, false, State::Removing),
        };
        let form = Form {
            v: VERSION,
            name: user.as_str().to_owned(),
            argon2,
            admin,
            state,
        };
        serde_json::to_string(&form).map_err(|error| RecordError::Form(error.to_string()))
    }

    pub fn decode(user: &UserId, text: &str) -> Result<Self, RecordError> {
        let form_error = |error: serde_json::Error| RecordError::Form(error.to_string());
        let AnyVersion { v } = serde_json::from_str(text).map_err(form_error)?;
        if v != VERSION {
            return Err(RecordError::Version(v));
        }
        let form: Form = serde_json::from_str(text).map_err(form_error)?;
        if form.name != user.as_str() {
            return Err(RecordError::Name);
        }
        match form.state {
            State::Removing => Ok(Self::Removing),
            State::Active => {
                let argon2 = form.argon2.ok_or_else(|| RecordError::Argon2("missing".into()))?;
                let stored = StoredHash::parse(&argon2).map_err(|error| RecordError::Argon2(error.to_string()))?;
                Ok(Self::Active {
                    stored,
                    admin: form.admin,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGON2: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn ann() -> UserId {
        UserId::new("ann").expect("a short name")
    }

    fn error(text: &str) -> Option<RecordError> {
        Record::decode(&ann(), text).err()
    }

    #[test]
    fn a_record_has_a_fixed_form_that_reads_back() -> Result<(), RecordError> {
        let text = format!(r#"{{"v":1,"name":"ann","argon2":"{ARGON2}","admin":true,"state":"active"}}"#);
        let record = Record::decode(&ann(), &text)?;
        assert!(matches!(&record, Record::Active { admin: true, stored } if stored.as_str() == ARGON2));
        assert_eq!(record.encode(&ann())?, text);
        let removing = Record::Removing.encode(&ann())?;
        assert!(matches!(Record::decode(&ann(), &removing)?, Record::Removing));
        Ok(())
    }

    #[test]
    fn a_damaged_or_foreign_record_is_refused() {
        assert!(matches!(error("{"), Some(RecordError::Form(_))));
        assert!(matches!(error(r#"{"v":1}"#), Some(RecordError::Form(_))));
        assert_eq!(error(r#"{"v":2,"who":"knows"}"#), Some(RecordError::Version(2)));
        let bob = r#"{"v":1,"name":"bob","state":"removing"}"#;
        assert_eq!(error(bob), Some(RecordError::Name));
        let no_hash = r#"{"v":1,"name":"ann","state":"active"}"#;
        assert!(matches!(error(no_hash), Some(RecordError::Argon2(_))));
        let state = r#"{"v":1,"name":"ann","state":"asleep"}"#;
        assert!(matches!(error(state), Some(RecordError::Form(_))));
    }

    #[test]
    fn a_key_names_the_user_it_was_made_of_whatever_the_name() {
        for name in ["ann", "user/", "a/b", "ü", &"x".repeat(crate::types::USER_ID_BYTES_MAX)] {
            let user = UserId::new(name).expect("within the limit");
            let key = key_of(&user).expect("a record's key is within the limit");
            assert_eq!(user_of(&key), Some(user));
        }
    }
}
