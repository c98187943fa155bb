//! Answers that were cut, or whose program did not see to its end: unknown, and not what is left.

use crate::{
    capture::{
        answer::{self, Parts},
        captured::Known,
        question::Batch,
        shell::{COMPLAINTS_BYTES_MAX, SECTION_BYTES_MAX},
        walk,
    },
    facts::Reason,
    target::{Found, Walked},
};

fn listed(output: &[u8], complaints: &[u8]) -> Known {
    let asked = Batch::Lists(vec!["/d".to_owned(), "/e".to_owned()]);
    let sections = [(b'o', output), (b'e', complaints)];
    let mut known = Known::default();
    answer::take(&asked, "mark", Parts::new(&sections), &mut known);
    known
}

fn entry(depth: usize, kind: &str, path: &str) -> Vec<u8> {
    format!("{depth} {kind} 755 0 0 1 1750775825.0 {path}\0\0").into_bytes()
}

/// Proves: RUL-4
#[test]
fn a_listing_cut_exactly_behind_an_entry_is_no_listing() {
    let mut output = entry(0, "d", "/d");
    assert!(listed(&output, b"").lists.contains_key("/d"));
    let name = "n".repeat(200);
    while SECTION_BYTES_MAX - output.len() > 600 {
        output.extend(entry(1, "f", &format!("/d/{name}")));
    }
    let bare = entry(1, "f", "/d/").len();
    let rest = SECTION_BYTES_MAX - output.len() - bare;
    output.extend(entry(1, "f", &format!("/d/{}", "n".repeat(rest))));
    assert_eq!(output.len(), SECTION_BYTES_MAX);
    assert!(listed(&output, b"").lists.is_empty());
}

/// Proves: RUL-4
#[test]
fn a_directory_whose_complaint_was_cut_off_is_not_empty() {
    let output = [entry(0, "d", "/d"), entry(0, "d", "/e")].concat();
    let line = "find: '/d/AAAAAAAAAAAAAAAAAAAAAAA': Permission denied\n";
    let mut complaints = line.repeat(COMPLAINTS_BYTES_MAX / line.len());
    let rest = COMPLAINTS_BYTES_MAX - complaints.len();
    complaints.insert_str("find: '/d/".len(), &"A".repeat(rest));
    assert_eq!(complaints.len(), COMPLAINTS_BYTES_MAX);
    // As the shell hands it over.
    let known = listed(&output, complaints.trim_end().as_bytes());
    assert!(!known.lists.contains_key("/e"), "{:?}", known.lists);
}

/// Proves: RUL-4
#[test]
fn a_file_whose_complaint_was_cut_off_is_not_empty() {
    let asked: Vec<String> = (10_000..12_000).map(|at| format!("/d/{at}")).collect();
    let lines = |line: fn(&str) -> String| asked.iter().map(|path| line(path)).collect::<String>();
    let stats = lines(|path| format!("8180 0 0 5 1750775825 0 0 {path}\n"));
    let listed = lines(|path| format!("{path}\n"));
    let complaints = lines(|path| format!("cat: {path}: Permission denied\n"));
    let mark = "mark";
    let separator = format!("LC_ALL=C\0N={mark}\0");
    let output = separator.repeat(2 + asked.len());
    let cut = complaints[..COMPLAINTS_BYTES_MAX].trim_end();
    let sections: [(u8, &[u8]); 5] = [
        (b'o', stats.as_bytes()),
        (b'e', b""),
        (b'l', listed.trim_end().as_bytes()),
        (b'c', output.as_bytes()),
        (b'e', cut.as_bytes()),
    ];
    let batch = Batch::Contents(asked.clone());
    let mut known = Known::default();
    answer::take(&batch, mark, Parts::new(&sections), &mut known);
    for path in &asked {
        let content = known.content(path);
        assert!(!matches!(content, Some(Found::Present(_))), "{path}");
    }
}

/// Proves: RUL-4
#[test]
fn a_walk_whose_find_was_killed_is_not_a_whole_one() {
    let take = |told: &str| {
        let sections = [(b'o', &b""[..]), (b's', told.as_bytes())];
        walk::take(&mut Parts::new(&sections), 3, &mut Walked::default())
    };
    for whole in ["0\n10 90\n", "1\n10 90\n", "1\n0 0\n"] {
        assert_eq!(take(whole), Ok(()), "{whole:?}");
    }
    assert_eq!(take("124\n10 90\n").unwrap_err().reason, Reason::Timeout);
    for part in ["137\n10 90\n", "139\n10 90\n", "127\n0 0\n", "125\n0 0\n"] {
        let unknown = take(part).unwrap_err();
        assert_eq!(unknown.reason, Reason::Unreadable, "{part:?}");
    }
}
