//! `docs/format/events.md` against the constants.

use crate::{
    Class, cursors,
    drain::dead_letter,
    event,
    ids::run,
    record::{self, Field},
};

const DOCUMENT: &str = include_str!("../../../../docs/format/events.md");

/// The rows of the first table behind `marker`, header left out.
fn table(marker: &str) -> Vec<Vec<String>> {
    let (_, after) = DOCUMENT
        .split_once(&format!("<!-- {marker} -->\n"))
        .unwrap_or_else(|| panic!("no {marker} in the document"));
    after
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

fn check(map: &str, fields: &[Field]) {
    let expected: Vec<Vec<String>> = fields
        .iter()
        .map(|field| {
            vec![
                field.at.to_string(),
                field.len.to_string(),
                field.name.to_owned(),
            ]
        })
        .collect();
    assert_eq!(table(&format!("map {map}")), expected, "{map}");
    for pair in fields.windows(2) {
        assert!(
            pair[0].at + pair[0].len <= pair[1].at,
            "{map}: {pair:?} overlap"
        );
    }
}

#[test]
fn the_byte_maps_say_what_the_constants_say() {
    check("event", &record::MAP);
    check("run", &run::MAP);
    check("letter", &dead_letter::LETTER_MAP);
    check("attempt", &dead_letter::ATTEMPT_MAP);
}

#[test]
fn the_numbers_of_classes_and_the_bounds_are_those_of_the_constants() {
    let classes: Vec<Vec<String>> = Class::ALL
        .iter()
        .map(|class| vec![record::class_number(*class).to_string(), class.to_string()])
        .collect();
    assert_eq!(table("classes"), classes);
    let bounds = [
        ("source", event::SOURCE_LEN_MAX),
        ("producer id", event::PRODUCER_ID_LEN_MAX),
        ("body", event::BODY_LEN_MAX),
        ("nesting of a body", event::BODY_DEPTH_MAX),
    ];
    let bounds = bounds.map(|(name, max)| vec![name.to_owned(), max.to_string()]);
    assert_eq!(table("bounds"), bounds);
}

#[test]
fn the_numbers_in_the_text_are_those_of_the_constants() {
    for text in [
        format!("these {} bytes", record::HEAD_LEN),
        format!(
            "blocks of {} bytes with {} entries",
            run::BLOCK_LEN,
            run::BLOCK_ENTRIES
        ),
        format!("entry has {} bytes", run::ENTRY_LEN),
        format!("at {}, are its checksum", run::BLOCK_CHECKSUM.at),
        format!("records of kind {} are events", record::KIND.0),
        format!("record of kind {} in `cursors/`", cursors::KIND.0),
        format!("flag {} |", record::FLAG_TRACE),
        format!("flag {} |", record::FLAG_SPAN),
        format!("flag {} |", record::FLAG_PRODUCER_ID),
        format!("{}`", run::SUFFIX),
        format!(
            "`{}`",
            str::from_utf8(&run::MAGIC).unwrap().replace('\0', "\\0")
        ),
    ] {
        assert!(DOCUMENT.contains(&text), "{text}");
    }
    assert_eq!([record::VERSION, cursors::VERSION], [1, 1]);
    assert_eq!(run::VERSION, 1);
    let cursor = 1 + 16 + 4 + 8;
    assert_eq!(cursors::CURSOR_LEN, cursor);
}
