//! How bodies are read: borrowed from the bytes where that is possible, and never with more memory than a small multiple
//! of the body, whatever it holds.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Serialize, Serializer};

use super::{BATCH_OPERATIONS_MAX, Operation, OperationTerms, User};
use crate::types::Consistency;

/// Reads a body that must be one JSON object.
pub fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, serde_json::Error> {
    // Checked as a whole once, not text by text. What is not UTF-8 gets the parser's own complaint, if it has one: it does not look at the
    // bytes of a text that it skips.
    let object = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str::<Object<T>>(text),
        Err(error) => serde_json::from_slice(body).and_then(|_: Object<T>| Err(serde_json::Error::custom(error))),
    };
    object.map(|object| object.0)
}

pub(super) fn flag_or_yes<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(true))
}

pub(super) fn flag_or_no<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(false))
}

/// serde borrows a bare `Cow`, but not one inside an `Option`.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn text<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    Ok(Option::<Borrowed<'a>>::deserialize(from)?.map(|text| text.0))
}

pub(super) fn user<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<User<'a>>, D::Error> {
    Ok(Option::<Object<User<'a>>>::deserialize(from)?.map(|user| user.0))
}

pub(super) fn consistency<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Consistency>, D::Error> {
    let name = text(from)?;
    let parse = |name: Cow<'_, str>| {
        name.parse()
            .map_err(|_| D::Error::unknown_variant(&name, &Consistency::NAMES))
    };
    name.map(parse).transpose()
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(super) fn consistency_name<S: Serializer>(level: &Option<Consistency>, to: S) -> Result<S::Ok, S::Error> {
    level.map(Consistency::name).serialize(to)
}

/// Stops at the limit, so that a long list costs no memory.
pub(super) fn operations<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Vec<Operation<'a>>, D::Error> {
    struct Operations<'a>(PhantomData<&'a ()>);

    impl<'de: 'a, 'a> Visitor<'de> for Operations<'a> {
        type Value = Vec<Operation<'a>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {BATCH_OPERATIONS_MAX} operations")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut operations = Vec::new();
            while let Some(operation) = seq.next_element()? {
                if operations.len() == BATCH_OPERATIONS_MAX {
                    return Err(A::Error::invalid_length(BATCH_OPERATIONS_MAX + 1, &self));
                }
                operations.push(operation);
            }
            Ok(operations)
        }
    }

    from.deserialize_seq(Operations(PhantomData))
}

/// The fields of every operation at once: unlike serde's tagged enums, this holds nothing of fields that it does not know.
#[derive(serde::Deserialize)]
struct AnyOperation<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text")]
    value: Option<Cow<'a, str>>,
    #[serde(default = "super::yes", deserialize_with = "flag_or_yes")]
    finish_value: bool,
    #[serde(borrow, default, deserialize_with = "text")]
    request_id: Option<Cow<'a, str>>,
    #[serde(default)]
    offset: Option<u64>,
    #[serde(default)]
    limit: Option<u64>,
    #[serde(default, deserialize_with = "flag_or_no")]
    count_only: bool,
    #[serde(default, deserialize_with = "consistency")]
    consistency: Option<Consistency>,
    #[serde(default)]
    deadline_ms: Option<u64>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Operation<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let any = Object::<AnyOperation<'a>>::deserialize(from)?.0;
        let terms = OperationTerms {
            consistency: any.consistency,
            deadline_ms: any.deadline_ms,
        };
        match &*any.op {
            "add_value" => Ok(Self::AddValue {
                key: any.key,
                value: any.value.ok_or_else(|| D::Error::missing_field("value"))?,
                finish_value: any.finish_value,
                request_id: any.request_id,
                terms,
            }),
            "get_value" => Ok(Self::GetValue {
                key: any.key,
                offset: any.offset,
                limit: any.limit,
                count_only: any.count_only,
                terms,
            }),
            "clear_key" => Ok(Self::ClearKey {
                key: any.key,
                request_id: any.request_id,
                terms,
            }),
            other => Err(D::Error::unknown_variant(
                other,
                &["add_value", "get_value", "clear_key"],
            )),
        }
    }
}

/// A struct that must come as a JSON object; serde_json would also take its fields as an array.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::deserialize(MapOnly(from)).map(Self)
    }
}

struct MapOnly<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for MapOnly<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AddValue, Batch, GetValue};
    use super::*;

    #[test]
    fn texts_without_escapes_are_borrowed_from_the_body() {
        let body = br#"{"key":"k","value":"v","request_id":"r","user":{"user_id":"u","password_hash":"p"}}"#;
        let add: AddValue = read(body).unwrap();
        assert!(matches!(add.key, Cow::Borrowed("k")) && matches!(add.request_id, Some(Cow::Borrowed("r"))));
        assert!(matches!(add.user.unwrap().user_id, Cow::Borrowed("u")));
    }

    #[test]
    fn null_counts_as_absent_where_a_field_is_optional() {
        let add: AddValue =
            read(br#"{"key":"k","value":"v","finish_value":null,"request_id":null,"user":null}"#).unwrap();
        assert!(add.finish_value && add.request_id.is_none() && add.user.is_none());
        let get: GetValue = read(br#"{"key":"k","offset":null,"limit":null,"count_only":null}"#).unwrap();
        assert!(get.offset.is_none() && get.limit.is_none() && !get.count_only);
        assert!(read::<AddValue>(br#"{"key":null,"value":"v"}"#).is_err());
    }

    #[test]
    fn what_is_not_utf8_is_refused_wherever_it_stands() {
        for body in [
            &b"{\"key\":\"k\xff\"}"[..],
            b"{\"key\":\"k\",\"more\":\"\xff\"}",
            b"{\"key\":\"k\",\"\xff\":1}",
            b"{\"key\":\"k\",\"more\":[{\"a\":\"\xc3\"}]}",
        ] {
            assert!(read::<GetValue>(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn an_array_is_no_object() {
        assert!(read::<GetValue>(br#"["k"]"#).is_err());
        assert!(read::<GetValue>(br#"{"key":"k","user":["u","p"]}"#).is_err());
        assert!(read::<Batch>(br#"{"operations":[["clear_key","k"]]}"#).is_err());
    }

    #[test]
    fn an_operation_reads_as_it_is_written() {
        let operations = vec![
            Operation::AddValue {
                key: "k".into(),
                value: "v".into(),
                finish_value: false,
                request_id: Some("r".into()),
                terms: OperationTerms::default(),
            },
            Operation::GetValue {
                key: "k".into(),
                offset: Some(1),
                limit: None,
                count_only: true,
                terms: OperationTerms {
                    consistency: Some(Consistency::One),
                    deadline_ms: Some(5),
                },
            },
            Operation::ClearKey {
                key: "k\n".into(),
                request_id: Some("\"".into()),
                terms: OperationTerms::default(),
            },
        ];
        let text = serde_json::to_vec(&Batch {
            operations: operations.clone(),
            consistency: Some(Consistency::All),
            deadline_ms: None,
            user: None,
        })
        .unwrap();
        let batch = read::<Batch>(&text).unwrap();
        assert_eq!(
            (batch.operations, batch.consistency),
            (operations, Some(Consistency::All))
        );
    }

    #[test]
    fn a_batch_of_too_many_operations_is_refused() {
        let body = |count: usize| {
            let one = r#"{"op":"clear_key","key":"k"}"#;
            format!(r#"{{"operations":[{}]}}"#, vec![one; count].join(","))
        };
        assert_eq!(
            read::<Batch>(body(BATCH_OPERATIONS_MAX).as_bytes())
                .unwrap()
                .operations
                .len(),
            BATCH_OPERATIONS_MAX
        );
        assert!(read::<Batch>(body(BATCH_OPERATIONS_MAX + 1).as_bytes()).is_err());
    }
}
