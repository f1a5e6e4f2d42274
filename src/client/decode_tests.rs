//! The decoder against serde_json, at every way of cutting.

use proptest::prelude::*;

use super::*;

/// Feeds `body` in chunks whose lengths are taken from `cuts` in turn.
fn decode(body: &[u8], cuts: &[usize]) -> Result<(Option<String>, Vec<String>), DecodeError> {
    let mut decoder = ValueDecoder::new();
    let mut pieces = Vec::new();
    let mut rest = body;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
        decoder.feed(chunk, &mut pieces)?;
        rest = tail;
    }
    decoder.finish()?;
    let mut values = Vec::new();
    let mut value = String::new();
    for piece in pieces {
        value.push_str(&piece.text);
        if piece.ends_value {
            values.push(std::mem::take(&mut value));
        }
    }
    assert!(value.is_empty(), "a value without its end");
    Ok((decoder.key().map(str::to_owned), values))
}

/// The text as JSON with everything that can be escaped escaped as `\uXXXX`.
fn escaped(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

proptest! {
    #[test]
    fn the_values_are_those_that_serde_json_reads(
        key in any::<String>(),
        values in proptest::collection::vec(any::<String>(), 0..6),
        escape in any::<bool>(),
        value_first in any::<bool>(),
        cuts in proptest::collection::vec(1usize..7, 1..5),
    ) {
        let quote = |text: &String| if escape { escaped(text) } else { serde_json::to_string(text).unwrap() };
        let list = values.iter().map(quote).collect::<Vec<_>>().join(" ,");
        let body = if value_first {
            format!("{{\"value\": [{list} ], \"x\":[{{}},\"]\\\"\"], \"n\":1.5e3,\"key\":{}}}", quote(&key))
        } else {
            format!("{{\"key\":{},\"s\":\"a\\\\\",\"value\":[{list}]}}\n", quote(&key))
        };
        let read: serde_json::Value = serde_json::from_str(&body).unwrap();
        let expected: Vec<String> = serde_json::from_value(read["value"].clone()).unwrap();
        let decoded = decode(body.as_bytes(), &cuts).unwrap();
        prop_assert_eq!(decoded, (Some(key), expected));
    }

    #[test]
    fn a_body_cut_short_is_an_error(values in proptest::collection::vec(any::<String>(), 0..4), at in any::<prop::sample::Index>()) {
        let body = serde_json::to_vec(&serde_json::json!({"key": "k", "value": values})).unwrap();
        let cut = at.index(body.len());
        prop_assert!(decode(&body[..cut], &[3]).is_err());
    }

    #[test]
    fn damaged_bytes_give_an_error_or_what_serde_json_reads(
        values in proptest::collection::vec("[a-c\u{e9}\u{1f600}\"\\\\]{0,4}", 0..3),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cuts in proptest::collection::vec(1usize..9, 1..3),
    ) {
        let mut body = serde_json::to_vec(&serde_json::json!({"key": "k", "value": values})).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok((_, decoded)) = decode(&body, &cuts) {
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(serde_json::json!(decoded), read["value"].clone());
        }
    }

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(body in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(decode(&body, &[1]).ok(), decode(&body, &[64]).ok());
    }
}

#[test]
fn an_escape_may_be_cut_anywhere() {
    let body = br#"{"key":"k","value":["\ud83d\ude00\n\u00e9","\"\\\/"]}"#;
    for cut in 1..body.len() {
        let (_, values) = decode(body, &[cut, body.len()]).unwrap();
        assert_eq!(values, ["\u{1f600}\n\u{e9}", "\"\\/"]);
    }
}

#[test]
fn what_is_not_this_format_is_refused() {
    for body in [
        r#"{"key":"k"}"#,
        r#"{"key":"k","value":"x"}"#,
        r#"{"key":"k","value":[1]}"#,
        r#"{"key":"k","value":["a",]}"#,
        r#"{"key":"k","value":[]}{}"#,
        r#"{"key":"k","value":[],"value":[]}"#,
        r#"{"key":"k","value":["\ud83d"]}"#,
        r#"{"key":"k","value":["\ude00"]}"#,
        r#"{"key":"k","value":["\ud83d\u0041"]}"#,
        r#"{"key":"k","value":["\x"]}"#,
        r#"{"key":5,"value":[]}"#,
        r#"[]"#,
        "{\"value\":[\"\u{1}\"]}",
    ] {
        assert!(decode(body.as_bytes(), &[2]).is_err(), "{body}");
    }
}

#[test]
fn an_error_names_the_byte() {
    let error = decode(br#"{"value":["a",7]}"#, &[4]).unwrap_err();
    assert_eq!(
        error,
        DecodeError {
            what: "a value that is not a string",
            offset: 14
        }
    );
}

#[test]
fn pieces_are_no_longer_than_the_chunks_they_came_in() {
    let mut decoder = ValueDecoder::new();
    let mut pieces = Vec::new();
    decoder.feed(br#"{"value":[""#, &mut pieces).unwrap();
    for _ in 0..100 {
        decoder.feed(&[b'x'; 50], &mut pieces).unwrap();
        assert!(pieces.drain(..).all(|piece| piece.text.len() <= 50));
    }
    assert!(decoder.text.is_empty());
}
