//! Reads what a newer node sends. Fields that it has added at the end of anything are passed over, which `rmp_serde` refuses to do. A message
//! that says something this node does not know costs that message alone, not the connection and all that waits on it: where it ends, and the name
//! it has, can be seen without that.
//!
//! Only what cannot be read otherwise is read this way, so it need not be fast. What is read here is bounded by the types that are asked for, and
//! by the bytes that are there.

use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Message, Request, Response, WireError};

/// Takes the first message off `bytes`; none if they are no message of any version.
pub(super) fn read(bytes: &mut &[u8]) -> Option<Message> {
    let mut reader = Reader(bytes);
    let Ok(Head::Map(1)) = reader.head() else { return None };
    let Ok(Head::Text(kind)) = reader.head() else {
        return None;
    };
    let Ok(Head::Array(fields @ 2..)) = reader.head() else {
        return None;
    };
    let Ok(Head::Unsigned(id)) = reader.head() else {
        return None;
    };
    let mut content = Reader(reader.0);
    for _ in 1..fields {
        reader.skip().ok()?;
    }
    let message = match kind {
        b"Request" => {
            let request = Request::deserialize(&mut content);
            Message::Request(id, request.unwrap_or_else(|error| Request::Unknown(error.to_string())))
        }
        b"Response" => {
            // It may say that it was done.
            let unknown = Response::Failed(WireError::Unavailable { maybe_applied: true });
            Message::Response(id, Response::deserialize(&mut content).unwrap_or(unknown))
        }
        _ => return None,
    };
    *bytes = reader.0;
    Some(message)
}

/// How a value begins; all of it, if it has no parts.
enum Head<'de> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Text(&'de [u8]),
    Bytes(&'de [u8]),
    /// So many values follow.
    Array(u64),
    /// So many pairs of them.
    Map(u64),
    /// What no message has.
    Other,
}

struct Reader<'de>(&'de [u8]);

impl<'de> Reader<'de> {
    fn take(&mut self, bytes: u64) -> Result<&'de [u8], Error> {
        let taken = usize::try_from(bytes)
            .ok()
            .and_then(|bytes| self.0.split_at_checked(bytes));
        let (taken, rest) = taken.ok_or_else(|| Error::custom("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Of so many bytes, no more than eight.
    fn number(&mut self, bytes: u64) -> Result<u64, Error> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, bytes: u64) -> Result<i64, Error> {
        let unused_bits = 64 - 8 * bytes;
        Ok((self.number(bytes)? << unused_bits).cast_signed() >> unused_bits)
    }

    fn head(&mut self) -> Result<Head<'de>, Error> {
        let marker = self.number(1)?;
        Ok(match marker {
            0x00..=0x7f => Head::Unsigned(marker),
            0x80..=0x8f => Head::Map(marker & 0x0f),
            0x90..=0x9f => Head::Array(marker & 0x0f),
            0xa0..=0xbf => Head::Text(self.take(marker & 0x1f)?),
            0xc0 => Head::Nil,
            0xc2 | 0xc3 => Head::Bool(marker == 0xc3),
            0xc4..=0xc6 => {
                let bytes = self.number(1 << (marker - 0xc4))?;
                Head::Bytes(self.take(bytes)?)
            }
            0xc7..=0xc9 => {
                let bytes = self.number(1 << (marker - 0xc7))?;
                self.take(1 + bytes)?;
                Head::Other
            }
            0xca | 0xcb => {
                self.take(4 << (marker - 0xca))?;
                Head::Other
            }
            0xcc..=0xcf => Head::Unsigned(self.number(1 << (marker - 0xcc))?),
            0xd0..=0xd3 => Head::Signed(self.signed(1 << (marker - 0xd0))?),
            0xd4..=0xd8 => {
                self.take(1 + (1 << (marker - 0xd4)))?;
                Head::Other
            }
            0xd9..=0xdb => {
                let bytes = self.number(1 << (marker - 0xd9))?;
                Head::Text(self.take(bytes)?)
            }
            0xdc | 0xdd => Head::Array(self.number(2 << (marker - 0xdc))?),
            0xde | 0xdf => Head::Map(self.number(2 << (marker - 0xde))?),
            0xe0..=0xff => Head::Signed(marker as i64 - 0x100),
            _ => return Err(Error::custom("no value begins like this")),
        })
    }

    /// Passes one value over, however deep it is.
    fn skip(&mut self) -> Result<(), Error> {
        let mut left = 1;
        while left > 0 {
            left -= 1;
            left += match self.head()? {
                Head::Array(values) => values,
                Head::Map(pairs) => 2 * pairs,
                _ => 0,
            };
        }
        Ok(())
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Nil => visitor.visit_unit(),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Unsigned(number) => visitor.visit_u64(number),
            Head::Signed(number) => visitor.visit_i64(number),
            Head::Text(text) => visitor.visit_borrowed_str(std::str::from_utf8(text).map_err(Error::custom)?),
            Head::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Head::Array(left) => {
                let mut values = Values { reader: self, left };
                let value = visitor.visit_seq(&mut values)?;
                // Those that were added.
                for _ in 0..values.left {
                    values.reader.skip()?;
                }
                Ok(value)
            }
            Head::Map(_) | Head::Other => Err(Error::custom("no message has such a value")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0.split_first() {
            Some((0xc0, rest)) => {
                self.0 = rest;
                visitor.visit_none()
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// A variant without content is its name; any other one is a pair.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (text, has_content) = match self.head()? {
            Head::Text(name) => (name, false),
            Head::Map(1) => match self.head()? {
                Head::Text(name) => (name, true),
                _ => return Err(Error::custom("a variant has no name")),
            },
            _ => return Err(Error::custom("no variant begins like this")),
        };
        let name = std::str::from_utf8(text).map_err(Error::custom)?;
        match has_content {
            true => visitor.visit_enum(Variant { name, reader: self }),
            false => visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(name)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

struct Values<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: u64,
}

impl<'de> SeqAccess<'de> for Values<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

struct Variant<'r, 'de> {
    name: &'de str,
    reader: &'r mut Reader<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: serde::de::value::StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.reader.skip()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.reader.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.reader.deserialize_any(visitor)
    }
}
