//! docs/format/store.md says what the constants say.

use std::{collections::BTreeMap, path::Path};

use world::{Disk, RealDisk};

use crate::{changes, description, follow, install, local, manifest, record, tree};

#[test]
fn the_byte_map_has_the_constants_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/store.md");
    let bytes = RealDisk.read(&path, 1 << 20).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (_, section) = text.split_once("## Constants (checked)").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let documented: BTreeMap<_, _> = section
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            Some((cells.next()?, cells.next()?.parse::<u64>().ok()?))
        })
        .collect();
    let code: BTreeMap<_, _> = [
        ("FORMAT_VERSION", u64::from(manifest::FORMAT_VERSION)),
        ("FRAME_LEN", manifest::FRAME_LEN as u64),
        ("IDENTITY_BODY_LEN", manifest::IDENTITY_BODY_LEN as u64),
        ("MANIFEST_BODY_LEN", manifest::MANIFEST_BODY_LEN as u64),
        ("TABLE_ENTRY_LEN", manifest::TABLE_ENTRY_LEN as u64),
        ("FIRST_TABLE", u64::from(local::FIRST_TABLE)),
        ("COMMIT", u64::from(record::COMMIT.0)),
        ("TABLES", u64::from(follow::TABLES.0)),
        ("VERSION", u64::from(record::VERSION)),
        ("HEADER_LEN", record::HEADER_LEN as u64),
        ("CHANGE_HEADER_LEN", record::CHANGE_HEADER_LEN as u64),
        ("FLAG_ONCE", u64::from(record::FLAG_ONCE)),
        ("KEY_LEN_MAX", record::KEY_LEN_MAX as u64),
        ("VALUE_LEN_MAX", record::VALUE_LEN_MAX as u64),
        ("ONCE_LEN_MAX", record::ONCE_LEN_MAX as u64),
        ("VERSION_LEN", tree::VERSION_LEN as u64),
        ("SEQNO_BASE", tree::SEQNO_BASE),
        ("FILE_ENTRY_LEN", description::FILE_ENTRY_LEN as u64),
        ("PART_BYTES", description::PART_BYTES),
        ("SECTION_LEN", changes::SECTION_LEN as u64),
    ]
    .into();
    assert_eq!(documented, code);
    for magic in [
        manifest::IDENTITY_MAGIC,
        manifest::MANIFEST_MAGIC,
        description::MAGIC,
        install::PROGRESS_MAGIC,
    ] {
        let magic = std::str::from_utf8(&magic).unwrap();
        assert!(text.contains(magic), "{magic}");
    }
}
