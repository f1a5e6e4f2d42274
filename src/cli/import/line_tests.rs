//! What lines become, and which lines are refused.

use std::io::BufReader;

use proptest::prelude::*;

use super::*;

fn events(bytes: &[u8], buffer_bytes: usize) -> Result<Vec<Event>, LineError> {
    let source = BufReader::with_capacity(buffer_bytes, bytes);
    let mut lines = ImportLines::new(source, blake3::Hasher::new(), 0, 0);
    let mut all = Vec::new();
    while let Some(event) = lines.next()? {
        all.push(event);
    }
    Ok(all)
}

/// The values, with their line and key.
fn values(events: &[Event]) -> Vec<(u64, String, String)> {
    let mut values = Vec::new();
    let mut text = String::new();
    for event in events {
        if let Event::Op(op) = event {
            text.push_str(&op.text);
            if op.finish {
                values.push((op.line, op.key.clone(), std::mem::take(&mut text)));
            }
        }
    }
    values
}

proptest! {
    #[test]
    fn every_value_of_every_line_comes_out_in_order(
        lines in proptest::collection::vec((".{1,5}", proptest::collection::vec(any::<String>(), 0..4)), 0..5),
        buffer_bytes in 1usize..40,
        key_first in any::<bool>(),
    ) {
        let mut file = String::new();
        let mut expected = Vec::new();
        for (number, (key, texts)) in lines.iter().enumerate() {
            let (key_json, list) = (serde_json::to_string(key).unwrap(), serde_json::to_string(texts).unwrap());
            file += &if key_first {
                format!("{{\"key\":{key_json},\"value\":{list}}}\n")
            } else {
                format!("{{\"value\":{list},\"key\":{key_json}}}\n")
            };
            expected.extend(texts.iter().map(|text| (number as u64 + 1, key.clone(), text.clone())));
        }
        let events = events(file.as_bytes(), buffer_bytes).unwrap();
        prop_assert_eq!(values(&events), expected);
        let ends = events.iter().filter(|event| matches!(event, Event::LineEnd(_))).count();
        prop_assert_eq!(ends, lines.len());
    }
}

#[test]
fn a_mark_at_the_very_beginning_is_no_part_of_the_first_line() {
    let line = "{\"key\":\"k\",\"value\":[\"\u{feff}v\"]}\n";
    let file = format!("\u{feff}{line}");
    for buffer_bytes in 1..6 {
        let all = events(file.as_bytes(), buffer_bytes).unwrap();
        assert_eq!(values(&all), [(1, "k".to_owned(), "\u{feff}v".to_owned())]);
        // What was imported is found again by the bytes of the file.
        let Some(Event::LineEnd(end)) = all.last() else {
            panic!("{all:?}")
        };
        assert_eq!(end.offset_bytes, file.len() as u64);
        assert_eq!(end.digest, blake3::hash(file.as_bytes()));
        assert!(events("\u{feff}".as_bytes(), buffer_bytes).unwrap().is_empty());
        for wrong in [
            format!("\u{feff}{file}").into_bytes(),
            format!("{line}{file}").into_bytes(),
            [b"\xef\xbb", line.as_bytes()].concat(),
            b"\xef".to_vec(),
        ] {
            assert!(events(&wrong, buffer_bytes).is_err(), "{wrong:?}");
        }
    }
}

#[test]
fn a_line_end_says_where_to_go_on() {
    let file = b"{\"key\":\"a\",\"value\":[]}\n\n{\"key\":\"b\",\"value\":[\"x\"]}";
    let events = events(file, 7).unwrap();
    let ends: Vec<Position> = events
        .iter()
        .filter_map(|event| match event {
            Event::LineEnd(position) => Some(*position),
            Event::Op(_) => None,
        })
        .collect();
    assert_eq!(
        ends.iter().map(|end| (end.lines, end.offset_bytes)).collect::<Vec<_>>(),
        [(1, 23), (2, 24), (3, 49)]
    );
    assert_eq!(ends[0].digest, blake3::hash(&file[..23]));
    assert_eq!(ends[2].digest, blake3::hash(file));
}

#[test]
fn a_wrong_line_is_named_and_nothing_of_it_is_given_out() {
    let good = "{\"key\":\"a\",\"value\":[\"1\"]}\n";
    for (wrong, what) in [
        ("{\"key\":\"b\",\"value\":[\"2\",3]}\n", "not a string"),
        ("{\"key\":\"b\",\"value\":[\"2\"]\n", "ends too early"),
        ("{\"key\":\"b\",\"value\":[\"2\"", "ends too early"),
        ("{\"value\":[\"2\"]}\n", "no \"key\""),
        ("{\"key\":\"b\"}\n", "no \"value\""),
        ("{\"key\":\"b\",\"value\":[]} {}\n", "after the end"),
        ("junk\n", "unexpected"),
    ] {
        let file = format!("{good}{wrong}");
        let mut lines = ImportLines::new(file.as_bytes(), blake3::Hasher::new(), 0, 0);
        assert!(matches!(lines.next().unwrap(), Some(Event::Op(op)) if op.key == "a"));
        assert!(matches!(lines.next().unwrap(), Some(Event::LineEnd(_))));
        let error = lines.next().unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains(what), "{wrong}: {error}");
        assert!(!error.contains("stored already"), "{error}");
    }
}

#[test]
fn a_long_value_comes_in_parts_and_memory_stays_bounded() {
    let value = "\u{e9}".repeat(LINE_HELD_BYTES);
    let file = format!("{{\"key\":\"k\",\"value\":[\"{value}\",\"x\"]}}\n");
    let mut lines = ImportLines::new(BufReader::new(file.as_bytes()), blake3::Hasher::new(), 0, 0);
    let mut all = Vec::new();
    while let Some(event) = lines.next().unwrap() {
        let queued: usize = lines.line.held_bytes + lines.ready.len();
        assert!(queued <= LINE_HELD_BYTES + 2 * PART_BYTES_MAX);
        all.push(event);
    }
    assert_eq!(
        values(&all),
        [(1, "k".to_owned(), value), (1, "k".to_owned(), "x".to_owned())]
    );
    let ops: Vec<&ImportOp> = all
        .iter()
        .filter_map(|event| match event {
            Event::Op(op) => Some(op),
            Event::LineEnd(_) => None,
        })
        .collect();
    assert!(ops.iter().all(|op| op.text.len() <= PART_BYTES_MAX));
    assert_eq!(
        ops.iter().map(|op| op.index).collect::<Vec<_>>(),
        (0..ops.len() as u64).collect::<Vec<_>>()
    );
    assert!(ops.iter().all(|op| op.whole == (op.text == "x")));
}
