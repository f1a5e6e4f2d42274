//! Every fault of a body that could not be read, in the manner of pydantic.
//!
//! Invariant: it holds nothing of the body but the faults, at most [`FIELD_ERRORS_MAX`] of them, however the body is built. What stands
//! behind the last of them, or beyond the length of a list, is only parsed.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::api::{FIELD_ERRORS_MAX, FieldError};

use super::route::Call;
use super::shape::{Field, Kind, OPERATION, Presence, Shape};

/// What is wrong with `body`. `basic`: whether the request carries HTTP Basic credentials.
pub fn explain(body: &[u8], shape: &'static Shape, basic: bool) -> Vec<FieldError> {
    let mut faults = Faults {
        path: vec![json!("body")],
        found: Vec::new(),
        basic,
        #[cfg(test)]
        looked_at: 0,
    };
    look_at(body, shape, &mut faults);
    faults.found
}

fn look_at(body: &[u8], shape: &'static Shape, faults: &mut Faults) {
    if body.iter().all(u8::is_ascii_whitespace) {
        return faults.add("missing", "Field required");
    }
    let kind = Kind::Object(shape);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seen = Probe {
        faults: &mut *faults,
        kind: Some(kind),
    }
    .deserialize(&mut reader);
    let (seen, error) = match seen.and_then(|seen| reader.end().map(|()| seen)) {
        Ok(seen) => (seen, None),
        Err(error) => (Seen::Null, Some(error)),
    };
    match error {
        Some(error) => faults.found = vec![not_json(body, &error)],
        // The parser does not look at the bytes of what it skips.
        None if let Err(error) = std::str::from_utf8(body) => {
            faults.found = vec![FieldError {
                loc: vec![json!("body"), json!(error.valid_up_to())],
                msg: format!("JSON decode error: {error}"),
                kind: "json_invalid".into(),
            }];
        }
        None => faults.check(&kind, seen),
    }
}

/// What is wrong with a body of the call at `path`; nothing when no call there takes one.
pub fn faults_of_body(path: &str, body: &[u8]) -> Vec<FieldError> {
    Call::of_path(path)
        .shape()
        .map_or_else(Vec::new, |shape| explain(body, shape, false))
}

/// For a body that the table finds no fault in and that could not be read all the same.
pub fn unexplained(error: impl fmt::Display) -> FieldError {
    FieldError {
        loc: vec![json!("body")],
        msg: error.to_string(),
        kind: "value_error".into(),
    }
}

fn not_json(body: &[u8], error: &serde_json::Error) -> FieldError {
    let before: usize = body
        .split(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(|line| line.len() + 1)
        .sum();
    FieldError {
        loc: vec![json!("body"), json!((before + error.column()).min(body.len()))],
        msg: format!("JSON decode error: {error}"),
        kind: "json_invalid".into(),
    }
}

struct Faults {
    path: Vec<Value>,
    found: Vec<FieldError>,
    basic: bool,
    /// Values that were not merely parsed.
    #[cfg(test)]
    looked_at: usize,
}

impl Faults {
    /// With so many, nothing more is looked at: whoever sends a long body must not make long work of it.
    fn are_all(&self) -> bool {
        self.found.len() >= FIELD_ERRORS_MAX
    }

    fn add(&mut self, kind: &str, msg: impl Into<String>) {
        if !self.are_all() {
            self.found.push(FieldError {
                loc: self.path.clone(),
                msg: msg.into(),
                kind: kind.into(),
            });
        }
    }

    fn within<T>(&mut self, step: Value, work: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = work(self);
        self.path.pop();
        result
    }

    /// Checks what was seen in one object's fields.
    fn check_object(&mut self, shape: &Shape, seen: &[Option<Seen>]) {
        let op = shape.fields.iter().zip(seen).find_map(|(field, seen)| match seen {
            Some(Seen::Text { choice, .. }) if field.presence == Presence::Required => *choice,
            _ => None,
        });
        for (field, seen) in shape.fields.iter().zip(seen) {
            let required = match field.presence {
                Presence::Required => true,
                Presence::Optional => false,
                Presence::UnlessBasic => !self.basic,
                Presence::ForOp(name) => op == Some(name),
            };
            // Null is as good as nothing where nothing will do; and a null `user` is no wrong user, but none.
            let absent_if_null = !required || field.presence == Presence::UnlessBasic;
            let seen = seen.filter(|seen| *seen != Seen::Null || !absent_if_null);
            self.within(json!(field.name), |faults| match seen {
                None if required => faults.add("missing", "Field required"),
                None => {}
                Some(seen) => faults.check(&field.kind, seen),
            });
        }
    }

    fn check(&mut self, kind: &Kind, seen: Seen) {
        match (kind, seen) {
            (Kind::Text { min, max }, Seen::Text { bytes, .. }) => self.check_length(bytes, *min, *max),
            (Kind::Text { .. }, _) => self.add("string_type", "Input should be a valid string"),
            (Kind::Flag { .. }, Seen::Flag) => {}
            (Kind::Flag { .. }, _) => self.add("bool_type", "Input should be a valid boolean"),
            (Kind::Number { min, max, .. }, seen) => self.check_number(*min, *max, seen),
            (Kind::OneOf { .. }, Seen::Text { choice: Some(_), .. }) => {}
            (Kind::OneOf { names, .. }, _) => self.add("literal_error", format!("Input should be {}", one_of(names))),
            (Kind::Object(_), Seen::Object) => {}
            (Kind::Object(_), _) => self.add(
                "model_attributes_type",
                "Input should be a valid dictionary or object to extract fields from",
            ),
            (Kind::Operations { max }, Seen::List { items }) => {
                if items > *max {
                    self.add("too_long", format!("List should have at most {max} items, not {items}"));
                }
            }
            (Kind::Operations { .. }, _) => self.add("list_type", "Input should be a valid list"),
        }
    }

    fn check_length(&mut self, bytes: usize, min: usize, max: Option<usize>) {
        if bytes < min {
            self.add(
                "string_too_short",
                format!("String should have at least {min} byte of UTF-8, not {bytes}"),
            );
        }
        if let Some(max) = max.filter(|max| bytes > *max) {
            self.add(
                "string_too_long",
                format!("String should have at most {max} bytes of UTF-8, not {bytes}"),
            );
        }
    }

    fn check_number(&mut self, min: u64, max: u64, seen: Seen) {
        let (below, above) = match seen {
            Seen::Unsigned(number) => (number < min, number > max),
            Seen::Negative => (true, false),
            Seen::Huge => (false, true),
            _ => return self.add("int_type", "Input should be a valid integer"),
        };
        if below {
            self.add(
                "greater_than_equal",
                format!("Input should be greater than or equal to {min}"),
            );
        }
        if above {
            self.add(
                "less_than_equal",
                format!("Input should be less than or equal to {max}"),
            );
        }
    }
}

fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// All that is kept of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Seen {
    Null,
    Flag,
    Unsigned(u64),
    /// An integer below 0.
    Negative,
    /// An integer above `u64::MAX`.
    Huge,
    Fraction,
    /// `choice`: which of the names of a [`Kind::OneOf`] it is.
    Text {
        bytes: usize,
        choice: Option<&'static str>,
    },
    List {
        items: usize,
    },
    Object,
}

/// Looks at one value; what is inside an object or list of a known kind it checks on the way.
struct Probe<'f> {
    faults: &'f mut Faults,
    kind: Option<Kind>,
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Seen, D::Error> {
        #[cfg(test)]
        {
            self.faults.looked_at += 1;
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Seen, E> {
        Ok(Seen::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Flag)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Seen, E> {
        Ok(Seen::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Seen, E> {
        Ok(u64::try_from(number).map_or(Seen::Negative, Seen::Unsigned))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Seen, E> {
        let beyond_u64 = number >= 18_446_744_073_709_551_616.0;
        Ok(if beyond_u64 { Seen::Huge } else { Seen::Fraction })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Seen, E> {
        let choice = match self.kind {
            Some(Kind::OneOf { names, .. }) => names.iter().find(|name| **name == text).copied(),
            _ => None,
        };
        Ok(Seen::Text {
            bytes: text.len(),
            choice,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Seen, A::Error> {
        const ELEMENT: Kind = Kind::Object(&OPERATION);
        let mut items = 0;
        let looked_at = match self.kind {
            Some(Kind::Operations { max }) => max,
            _ => 0,
        };
        loop {
            if items == looked_at || self.faults.are_all() {
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    items += 1;
                }
                return Ok(Seen::List { items });
            }
            let more = self.faults.within(json!(items), |faults| {
                let seen = seq.next_element_seed(Probe {
                    faults,
                    kind: Some(ELEMENT),
                })?;
                if let Some(seen) = seen {
                    faults.check(&ELEMENT, seen);
                }
                Ok(seen.is_some())
            })?;
            if !more {
                return Ok(Seen::List { items });
            }
            items += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let Some(Kind::Object(shape)) = self.kind else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Seen::Object);
        };
        let mut seen: Vec<Option<Seen>> = vec![None; shape.fields.len()];
        while let Some(place) = map.next_key_seed(FieldName(shape))? {
            let Some((place, field)) = place.filter(|_| !self.faults.are_all()) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = self.faults.within(json!(field.name), |faults| {
                map.next_value_seed(Probe {
                    faults,
                    kind: Some(field.kind),
                })
            })?;
            if let Some(slot) = seen.get_mut(place)
                && slot.replace(value).is_some()
            {
                self.faults.within(json!(field.name), |faults| {
                    faults.add("duplicate", "Field given more than once")
                });
            }
        }
        if !self.faults.are_all() {
            self.faults.check_object(shape, &seen);
        }
        Ok(Seen::Object)
    }
}

/// Which field of the shape a name is.
struct FieldName(&'static Shape);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Option<(usize, &'static Field)>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Option<(usize, &'static Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().enumerate().find(|(_, field)| field.name == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BATCH_OPERATIONS_MAX;
    use crate::http::shape::BATCH;

    /// The faults of a batch, and how many values were looked at for them.
    fn faults_of(body: &str) -> (Vec<FieldError>, usize) {
        let mut faults = Faults {
            path: vec![json!("body")],
            found: Vec::new(),
            basic: false,
            looked_at: 0,
        };
        look_at(body.as_bytes(), &BATCH, &mut faults);
        (faults.found, faults.looked_at)
    }

    /// Whoever sends it may be nobody's user.
    #[test]
    fn a_long_body_is_looked_at_no_further_than_is_told_of_it() {
        let many = |text: &str| vec![text; 300_000].join(",");
        for (operation, at_most) in [
            ("{}", FIELD_ERRORS_MAX),
            ("0", FIELD_ERRORS_MAX),
            (r#"{"op":1,"op":1,"op":1,"key":"k"}"#, 4 * FIELD_ERRORS_MAX),
            (r#"{"op":"clear_key","key":"k"}"#, 3 * BATCH_OPERATIONS_MAX),
        ] {
            let (found, looked_at) = faults_of(&format!(r#"{{"operations":[{}]}}"#, many(operation)));
            assert!(
                !found.is_empty() && looked_at <= 2 + at_most,
                "{operation}: {looked_at}"
            );
        }
        let (found, looked_at) = faults_of(&format!("{{{}}}", many(r#""user":{}"#)));
        assert!(
            found.len() == FIELD_ERRORS_MAX && looked_at <= 1 + FIELD_ERRORS_MAX,
            "{looked_at}"
        );
        let (found, looked_at) = faults_of(&format!(r#"{{"operations":[{{{}}}]}}"#, many(r#""key":"k""#)));
        assert!(
            found.len() == FIELD_ERRORS_MAX && looked_at <= 4 + FIELD_ERRORS_MAX,
            "{looked_at}"
        );
    }
}
