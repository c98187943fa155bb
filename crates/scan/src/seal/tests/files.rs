//! Files that somebody made out of an export.

use super::*;

fn lines_of(bytes: &[u8]) -> Vec<Line> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| Line::parse(line.strip_suffix(b"\n").unwrap()).unwrap())
        .collect()
}

/// A file of these lines, its last line made again as by somebody without the key, or with another.
fn file_of(lines: &[Line], key: Option<&PrivateKey>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut count = 0;
    for line in lines {
        if !matches!(line, Line::End { .. }) {
            bytes.extend(line.bytes());
            count += 1;
        }
    }
    let sha256 = digest(&bytes);
    let signature = key.map(|key| Signature::of(key, &export_text(&sha256)));
    let end = Line::End {
        lines: count,
        sha256,
        signature,
    };
    bytes.extend(end.bytes());
    bytes
}

fn position(lines: &[Line], is_it: impl Fn(&Line) -> bool) -> usize {
    lines.iter().position(is_it).unwrap()
}

/// All links and digests made again after an edit, as by somebody who knows the format.
fn rechained(lines: &mut [Line]) {
    let mut heads: BTreeMap<String, String> = BTreeMap::new();
    for line in lines {
        match line {
            Line::Host { row } => {
                heads.insert(row.host.clone(), row.link());
            }
            Line::Change { chain, row } => {
                *chain = row.link(&heads[&row.host]);
                heads.insert(row.host.clone(), chain.clone());
            }
            Line::Scan { chain, row } => {
                *chain = row.link(&heads[&row.host]);
                heads.insert(row.host.clone(), chain.clone());
            }
            _ => {}
        }
    }
}

/// All statements made again under another key.
fn resigned(lines: &mut [Line], key: &PrivateKey) {
    let mut hosts: BTreeMap<String, HostHead> = BTreeMap::new();
    let mut previous = NOTHING_BEFORE.to_owned();
    for line in lines {
        match line {
            Line::Change { row, .. } => {
                hosts
                    .entry(row.host.clone())
                    .or_insert_with(|| HostHead {
                        changes: 0,
                        host: row.host.clone(),
                        scans: 0,
                        sha256: String::new(),
                    })
                    .changes = row.number;
            }
            Line::Scan { chain, row } => {
                let head = hosts.get_mut(&row.host).unwrap();
                head.scans = row.number;
                head.sha256.clone_from(chain);
            }
            Line::Statement { row, signatures } => {
                row.key = key.public().base64();
                row.previous.clone_from(&previous);
                row.hosts = heads(hosts.values());
                *signatures = vec![Signature::of(key, &row.text())];
                previous = row.digest();
            }
            _ => {}
        }
    }
}

struct Case {
    lines: Vec<Line>,
    bytes: Vec<u8>,
    key: PublicKey,
}

fn case() -> Case {
    let place = Place::with_history();
    let bytes = place.export(&asked(Kind::Ledger), false).unwrap();
    Case {
        lines: lines_of(&bytes),
        bytes,
        key: place.key().public(),
    }
}

fn found(bytes: &[u8], key: &PublicKey, why: &str) {
    let told = verify(bytes, Some(key)).expect_err(why);
    assert!(told.contains(why), "`{why}` is not in: {told}");
}

/// Proves: LED-10
#[test]
fn a_file_that_was_cut_off_edited_or_put_in_another_order_is_found() {
    let Case { lines, bytes, key } = case();
    found(&[], &key, "line 1: the file ends without its last line");
    found(&bytes[..bytes.len() - 9], &key, "it ends in its middle");
    let last = bytes.len() - lines.last().unwrap().bytes().len();
    found(&bytes[..last], &key, "the file ends without its last line");
    found(
        &[&bytes[..], b"{}\n"].concat(),
        &key,
        "it comes after the last line",
    );
    let text = String::from_utf8(bytes.clone()).unwrap();
    let edited = text.replacen("os.id is pass", "os.id is fine", 1);
    found(
        edited.as_bytes(),
        &key,
        "line 3, host `db`, change 1: its link is not that of its row",
    );
    let spaced = text.replacen("\",\"", "\", \"", 1);
    found(
        spaced.as_bytes(),
        &key,
        "it is not spelled as an export spells it",
    );
    let date = text.replacen("\"made\":\"2023", "\"made\":\"2024", 1);
    found(date.as_bytes(), &key, "the lines before are not those");
    for (from, to, why) in [
        (2, 3, "host `db`, change 2: after change 0 comes this one"),
        (1, 2, "its chain has no beginning"),
        (0, 1, "it does not belong here"),
    ] {
        let mut swapped = lines.clone();
        swapped.swap(from, to);
        found(&file_of(&swapped, None), &key, why);
    }
}

/// Proves: LED-10
#[test]
fn a_line_that_was_left_out_is_found_whatever_it_was() {
    let Case { lines, key, .. } = case();
    for index in 0..lines.len() - 1 {
        let mut without = lines.clone();
        let gone = without.remove(index);
        verify(&file_of(&without, None), Some(&key)).expect_err(&format!("without {gone:?}"));
        let mut twice = lines.clone();
        twice.insert(index, gone);
        let told = verify(&file_of(&twice, None), Some(&key));
        told.expect_err(&format!("twice {:?}", lines[index]));
    }
}

/// Proves: LED-10
#[test]
fn whoever_makes_all_links_again_is_found_by_the_statements_and_by_the_key() {
    let Case { mut lines, key, .. } = case();
    let index = position(&lines, |line| matches!(line, Line::Change { .. }));
    if let Line::Change { row, .. } = &mut lines[index] {
        "os.id is fine".clone_into(&mut row.reason);
    }
    rechained(&mut lines);
    let why = "statement 1: the chains of the hosts up to here are not those";
    found(&file_of(&lines, None), &key, why);
    let thief = PrivateKey::generate(&RealRandom).unwrap();
    resigned(&mut lines, &thief);
    let forged = file_of(&lines, Some(&thief));
    // Sound in itself: only who has the key from elsewhere can tell.
    verify(&forged, None).unwrap();
    found(
        &forged,
        &key,
        "no statement is signed by the key that was given",
    );
    // The statements are right, and what follows them is signed by another key.
    let Case { lines, key, .. } = case();
    found(
        &file_of(&lines, Some(&thief)),
        &key,
        "the signature is not that of the key",
    );
    found(
        &file_of(&lines, None),
        &key,
        "the file is not signed as a whole",
    );
}

/// Proves: LED-10
#[test]
fn a_new_key_that_the_one_before_did_not_sign_for_is_found() {
    let Case { mut lines, key, .. } = case();
    let thief = PrivateKey::generate(&RealRandom).unwrap();
    let last = lines.len()
        - 1
        - lines
            .iter()
            .rev()
            .position(|line| matches!(line, Line::Statement { .. }))
            .unwrap();
    if let Line::Statement { row, signatures } = &mut lines[last] {
        row.key = thief.public().base64();
        *signatures = vec![Signature::of(&thief, &row.text())];
    }
    let why = "statement 3: it is not signed as it must be";
    found(&file_of(&lines, Some(&thief)), &key, why);
    if let Line::Statement { row, signatures } = &mut lines[last] {
        signatures.push(Signature {
            key: key.base64(),
            value: signatures[0].value.clone(),
        });
        assert_eq!(row.sequence, 3);
    }
    found(&file_of(&lines, Some(&thief)), &key, why);
}

/// A site that lost its key goes on by another, and nobody is told that the old one vouches for it.
/// Proves: LED-10
#[test]
fn a_lost_key_is_replaced_in_the_open_and_another_statement_cannot_name_a_new_key() {
    let place = Place::with_history();
    let before = place.key();
    RealDisk
        .remove_file(&place.keys().join(key::KEY_FILE))
        .unwrap();
    let next = key::prepare(&RealDisk, &place.keys(), &RealRandom).unwrap();
    let sealed = place
        .book()
        .replace_lost(&next, &RealRandom, place.now())
        .unwrap();
    assert_eq!(sealed.signed.row.reason, Reason::KeyLost);
    assert_eq!(sealed.signed.signatures.len(), 1);
    // The process dies here: the next look finds the key that the newest statement names.
    assert_eq!(place.key().public(), next.public());
    place.scan("db", &[("a", Judged::Fail)]);
    place.seal(Reason::Asked);
    let here = place.verify(Kind::Ledger).unwrap();
    assert_eq!(here.keys_lost.len(), 1);
    let bytes = place.export(&asked(Kind::Ledger), false).unwrap();
    let outcome = verify(&bytes, Some(&next.public())).unwrap();
    let [lost] = &outcome.keys_lost[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (lost.sequence, &lost.before, &lost.key),
        (4, &before.public().base64(), &next.public().base64())
    );
    let why = "statement 4 says that the key before it was lost";
    found(&bytes, &before.public(), why);

    // The same by any other reason: somebody's key, and no word of the one before.
    let mut lines = lines_of(&bytes);
    for line in &mut lines {
        if let Line::Statement { row, signatures } = line
            && row.reason == Reason::KeyLost
        {
            row.reason = Reason::Asked;
            *signatures = vec![Signature::of(&next, &row.text())];
        }
    }
    let why = "statement 4: it is not signed as it must be";
    found(&file_of(&lines, Some(&next)), &next.public(), why);
}

/// What is detectable of an older export shown as the newest one, and what is not.
#[test]
fn an_older_export_is_sound_and_only_a_note_tells_that_it_is_old() {
    let place = Place::with_history();
    let key = place.key().public();
    let old = place.export(&asked(Kind::Ledger), false).unwrap();
    place.scan("db", &[("a", Judged::Fail)]);
    let newer = place.seal(Reason::Asked).unwrap().signed.row;
    let new = place.export(&asked(Kind::Ledger), false).unwrap();
    let note = BTreeMap::from([(newer.sequence, newer.digest())]);
    verify(&old, Some(&key)).unwrap();
    verify_noted(&new, Some(&key), note.clone()).unwrap();
    let told = verify_noted(&old, Some(&key), note).unwrap_err();
    assert!(
        told.contains("statement 4, which was noted, is not in it"),
        "{told}"
    );
    let other = BTreeMap::from([(2, digest(b"another"))]);
    let told = verify_noted(&new, Some(&key), other).unwrap_err();
    assert!(
        told.contains("its digest is not the one that was noted"),
        "{told}"
    );
}

#[test]
fn a_wrong_key_is_told_with_the_key_that_signed() {
    let Case { bytes, key, .. } = case();
    let other = PrivateKey::generate(&RealRandom).unwrap().public();
    found(&bytes, &other, &key.base64());
}

#[test]
fn what_is_no_export_is_refused_without_being_read_into_memory() {
    let key = PrivateKey::generate(&RealRandom).unwrap().public();
    let packed = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    for (bytes, why) in [
        (b"hello\n".to_vec(), "line 1: it is no such line"),
        (vec![0; 4096], "it ends in its middle"),
        (vec![b'x'; LINE_BYTES_MAX + 10], "longer than 1048576 bytes"),
        (packed(&vec![0; 64 << 20]), "longer than 1048576 bytes"),
        (packed(b"hello\n"), "line 1: it is no such line"),
        (packed(&vec![b'\n'; 64 << 20]), "line 1: it is no such line"),
        (packed(b"hello\n")[..9].to_vec(), "breaks off or is damaged"),
        (
            [&ZSTD_MAGIC[..], b"garbage"].concat(),
            "breaks off or is damaged",
        ),
        (
            format!("{}\n", "[".repeat(100_000)).into_bytes(),
            "line 1: it is no such line",
        ),
        (huge_window(), "breaks off or is damaged"),
    ] {
        found(&bytes, &key, why);
    }
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A frame that asks for a window of 1 GiB.
fn huge_window() -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(30).unwrap();
    std::io::Write::write_all(&mut encoder, &vec![b'x'; 1 << 16]).unwrap();
    encoder.finish().unwrap()
}
