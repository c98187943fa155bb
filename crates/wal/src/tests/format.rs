//! `docs/format/journal.md` against the constants.

use std::collections::BTreeMap;

use crate::{
    batch, block, block::Field, epochs, identity, order, quarantine::records, segment, slots,
};

const DOCUMENT: &str = include_str!("../../../../docs/format/journal.md");

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
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

fn fields(map: &[Field]) -> Vec<Vec<String>> {
    map.iter()
        .map(|field| {
            vec![
                field.at.to_string(),
                field.len.to_string(),
                field.name.to_owned(),
            ]
        })
        .collect()
}

fn check(map: &str, prologue: bool, map_fields: &[Field]) {
    let skip = if prologue { PROLOGUE.len() } else { 0 };
    assert_eq!(
        map_fields[..skip],
        PROLOGUE[..skip],
        "{map} has the prologue"
    );
    assert_eq!(
        table(&format!("map {map}")),
        fields(&map_fields[skip..]),
        "{map}"
    );
    for pair in map_fields.windows(2) {
        assert!(
            pair[0].at + pair[0].len <= pair[1].at,
            "{map}: {pair:?} overlap"
        );
    }
}

const PROLOGUE: [Field; 5] = [
    block::MAGIC,
    block::VERSION,
    block::CHECKSUM,
    block::JOURNAL,
    block::GENERATION,
];

#[test]
fn the_byte_map_says_what_the_constants_say() {
    check("prologue", false, &PROLOGUE);
    check("slot", true, &slots::MAP);
    check("segment", true, &segment::MAP);
    check("reset order", true, &order::RESET_MAP);
    check("import order", true, &order::IMPORT_MAP);
    check("identity", true, &identity::MAP);
    check("history", true, &epochs::MAP);
    check("history entry", false, &epochs::ENTRY_MAP);
    check("cut order", true, &order::CUT_MAP);
    check("base order", true, &order::BASE_MAP);
    check("records file", true, &records::MAP);
    check("cut record", false, &records::RECORD_MAP);
    check("batch", false, &batch::MAP);
    check("record", false, &batch::RECORD_MAP);
}

#[test]
fn the_sizes_and_magics_are_those_of_the_constants() {
    let text = |magic: [u8; 8]| {
        let shown: String = magic
            .iter()
            .flat_map(|&byte| byte.escape_ascii())
            .map(char::from)
            .collect();
        format!("`{}`", shown.replace("\\x00", "\\0"))
    };
    let hex: Vec<String> = batch::MAGIC
        .to_le_bytes()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let expected = BTreeMap::from([
        ("identity", (identity::LEN, text(identity::MAGIC))),
        ("slot", (slots::SLOT_LEN, text(slots::MAGIC))),
        ("reset order", (order::LEN, text(order::RESET_MAGIC))),
        ("import order", (order::LEN, text(order::IMPORT_MAGIC))),
        (
            "segment header",
            (segment::HEADER_LEN, text(segment::MAGIC)),
        ),
        (
            "batch header",
            (batch::HEADER_LEN, format!("`{}`", hex.join(" "))),
        ),
        ("cut order", (order::LEN, text(order::CUT_MAGIC))),
        ("base order", (order::LEN, text(order::BASE_MAGIC))),
        ("history", (epochs::HEADER_LEN, text(epochs::MAGIC))),
        ("history entry", (epochs::ENTRY_LEN, String::new())),
        ("records file", (records::HEADER_LEN, text(records::MAGIC))),
        (
            "cut record header",
            (records::RECORD_HEADER_LEN, String::new()),
        ),
        ("record header", (batch::RECORD_HEADER_LEN, String::new())),
    ]);
    let found: Vec<_> = table("sizes");
    assert_eq!(found.len(), expected.len());
    for row in &found {
        let (len, magic) = &expected[row[0].as_str()];
        assert_eq!((&row[1], &row[2]), (&len.to_string(), magic), "{}", row[0]);
    }
}

#[test]
fn the_numbers_in_the_text_are_those_of_the_constants() {
    for (what, number) in [
        ("longest payload", batch::payload_len_max()),
        ("longest record", batch::RECORD_LEN_MAX),
        ("safe-point file", slots::FILE_LEN),
        ("offset of the second slot", slots::SLOT_LEN),
        ("cuts kept", crate::quarantine::CUTS_MAX),
        ("spares kept", crate::spare::SPARES_MAX),
        ("zeros behind a batch", batch::HEADER_LEN),
        ("epochs kept", epochs::EPOCHS_MAX),
    ] {
        assert!(DOCUMENT.contains(&format!(" {number}")), "{what}: {number}");
    }
    for name in [
        identity::NAME,
        slots::NAME,
        &format!("*{}", crate::spare::EXTENSION),
        crate::quarantine::DIR,
        epochs::NAME,
        order::CUT_NAME,
        order::BASE_NAME,
    ] {
        assert!(DOCUMENT.contains(&format!("| `{name}")), "{name}");
    }
    for cause in crate::Cause::ALL {
        assert!(
            DOCUMENT.contains(&format!("| `{}` |", cause.code())),
            "{cause:?}"
        );
    }
}
