//! The records of a name: JSON values, the list under the system user's key `user/<name>`. `history` says what they come to.
//!
//! A *life* of a name is from the adding of a user to its removal; a random number tells it from the others.

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

/// The life of records that were written before lives had numbers, and of the removal of a record that cannot be read.
pub(super) const NO_LIFE: &str = "";

pub(super) enum Record {
    /// Somebody wants to add the user, and looks whether another one does too.
    Adding { life: String },
    /// The user is added, or has a new password.
    Active {
        life: String,
        stored: StoredHash,
        admin: bool,
    },
    /// Somebody wants to remove the user; it is begun when that is decided, and ends with all of these records.
    Removing { life: String, id: String, decided: bool },
    /// What was begun under this number, a life or a removal, was given up. Of a user who was removed it is all that stays.
    Void { id: String },
    /// It was not.
    Restored { id: String },
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
    #[serde(default, skip_serializing_if = "String::is_empty")]
    life: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decided: Option<bool>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Adding,
    Active,
    Removing,
    Void,
    Restored,
}

impl Record {
    pub fn encode(&self, user: &UserId) -> Result<String, RecordError> {
        let mut form = Form {
            v: VERSION,
            name: user.as_str().to_owned(),
            argon2: None,
            admin: false,
            state: State::Active,
            life: String::new(),
            id: String::new(),
            decided: None,
        };
        match self {
            Self::Adding { life } => (form.state, form.life) = (State::Adding, life.clone()),
            Self::Active { life, stored, admin } => {
                form.life.clone_from(life);
                form.argon2 = Some(stored.as_str().to_owned());
                form.admin = *admin;
            }
            Self::Removing { life, id, decided } => {
                (form.state, form.life, form.id) = (State::Removing, life.clone(), id.clone());
                form.decided = Some(*decided);
            }
            Self::Void { id } => (form.state, form.id) = (State::Void, id.clone()),
            Self::Restored { id } => (form.state, form.id) = (State::Restored, id.clone()),
        }
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
        let (life, id) = (form.life, form.id);
        match form.state {
            State::Adding => Ok(Self::Adding { life }),
            // One that does not say was written before it was asked, and is carried out.
            State::Removing => Ok(Self::Removing {
                life,
                id,
                decided: form.decided.unwrap_or(true),
            }),
            State::Void => Ok(Self::Void { id }),
            State::Restored => Ok(Self::Restored { id }),
            State::Active => {
                let argon2 = form.argon2.ok_or_else(|| RecordError::Argon2("missing".into()))?;
                let stored = StoredHash::parse(&argon2).map_err(|error| RecordError::Argon2(error.to_string()))?;
                Ok(Self::Active {
                    life,
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
    fn every_record_has_a_fixed_form_that_reads_back() {
        for rest in [
            format!(r#""argon2":"{ARGON2}","admin":true,"state":"active""#),
            format!(r#""argon2":"{ARGON2}","admin":true,"state":"active","life":"1f""#),
            r#""admin":false,"state":"adding","life":"1f""#.to_owned(),
            r#""admin":false,"state":"removing","life":"1f","id":"2e","decided":false"#.to_owned(),
            r#""admin":false,"state":"void","id":"2e""#.to_owned(),
            r#""admin":false,"state":"restored","id":"2e""#.to_owned(),
        ] {
            let text = format!(r#"{{"v":1,"name":"ann",{rest}}}"#);
            let record = Record::decode(&ann(), &text);
            assert_eq!(record.and_then(|record| record.encode(&ann())), Ok(text));
        }
        let old = Record::decode(&ann(), r#"{"v":1,"name":"ann","state":"removing"}"#);
        assert!(matches!(old, Ok(Record::Removing { decided: true, .. })));
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
