//! Every collector against files and programs made to break it.
//!
//! Each declared path of each collector is planted with the same hostile content, and each declared
//! command prints it. Whatever comes out must be a fact or an unknown: a panic shows as `broke`, a
//! loop or a quadratic parser as a timeout.

use std::fmt::Write as _;

use super::{fixture::Fixture, list};
use crate::facts::{Reason, Unknown};

/// Long enough that a parser which looks at each pair of lines takes longer than its deadline.
const CONTENT_BYTES: usize = 32 << 10;

/// A file name that fits every wildcard, digits for `/proc/*`.
const NAME: &str = "7";

/// The paths of a declaration: `{a,b}` in each form, wildcards filled in. Prose has none.
fn planted(declared: &str) -> Vec<String> {
    if !declared.starts_with('/') || declared.contains(' ') {
        return Vec::new();
    }
    if let Some((before, rest)) = declared.split_once('{')
        && let Some((choices, after)) = rest.split_once('}')
    {
        let choices = choices.split(',');
        return choices
            .flat_map(|choice| planted(&format!("{before}{choice}{after}")))
            .collect();
    }
    let path = declared.replace("**", "7.service").replace('*', NAME);
    vec![path.replace("[2345]", "2").replace("...", NAME)]
}

fn host(collector: &super::Collector, content: &[u8]) -> Fixture {
    let mut host = Fixture::new(&[]);
    for path in collector
        .reads
        .iter()
        .flat_map(|declared| planted(declared))
    {
        // A declared directory may lie above a declared file.
        if !host.at(&path).exists()
            && host
                .at(&path)
                .ancestors()
                .skip(1)
                .all(|above| !above.is_file())
        {
            host.write(&path, content);
        }
    }
    let text = String::from_utf8_lossy(content);
    for line in collector.runs {
        host = host.prints(line, 0, &text);
    }
    host
}

fn check(story: &str, content: &[u8]) {
    for collector in list() {
        let fact = host(collector, content).collect(collector);
        if let Some(unknown) = Unknown::from_value(&fact) {
            assert!(
                unknown.reason != Reason::Timeout && !unknown.detail.contains("broke"),
                "{story}: {}: {unknown}",
                collector.name,
            );
        }
    }
}

fn repeated(part: &str) -> Vec<u8> {
    part.repeat(CONTENT_BYTES / part.len()).into_bytes()
}

/// A xorshift generator: the same bytes at every run.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(CONTENT_BYTES);
    while bytes.len() < CONTENT_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// Proves: EXE-7
#[test]
fn binary_noise_breaks_no_collector() {
    check("noise", &noise(0x9E37_79B9_7F4A_7C15));
    check("zeros", &vec![0; CONTENT_BYTES]);
    check("half of a character", b"\xe2\x82");
    check("nothing", b"");
    check("no end of line", b"x");
}

/// Proves: EXE-7
#[test]
fn one_endless_line_breaks_no_collector() {
    for part in [
        "x", " ", "a ", "a,", "a=", "\\", "\"", "(", "{", "[", ":", "/", "$A", "${", "`", "\t,",
    ] {
        check(&format!("one line of {part:?}"), &repeated(part));
    }
}

/// Proves: EXE-7
#[test]
fn a_million_little_lines_break_no_collector() {
    for line in [
        "\n",
        "\\\n",
        "a\n",
        "a b\n",
        "a=b\n",
        "a: b\n",
        "{\n",
        "}\n",
        "\"\n",
        "[x]\n",
        "if\n",
        "x:x:0:0:x:/:/bin/sh\n",
    ] {
        check(&format!("lines of {line:?}"), &repeated(line));
    }
    let mut distinct = String::new();
    for number in 0..1_500 {
        writeln!(distinct, "name{number} = value{number}").expect("a string takes any text");
    }
    check("distinct names", distinct.as_bytes());
}

#[test]
fn files_that_include_themselves_break_no_collector() {
    for line in [
        "Include /etc/*/*\n",
        "@include /etc/sudoers\n@includedir /etc/sudoers.d\n",
        "include /etc/logrotate.d\ninclude /etc/logrotate.conf\n",
        "$IncludeConfig /etc/rsyslog.d/*\n$IncludeConfig /etc/rsyslog.conf\n",
        "include /etc/chrony/*/*\nconfdir /etc/chrony/conf.d\n",
        "@include common-auth\nauth include common-auth\nauth substack common-auth\n",
        ". /etc/profile\nsource /etc/bash.bashrc\n",
    ] {
        check(line, line.repeat(50).as_bytes());
    }
}

#[test]
fn links_in_a_circle_and_directories_in_place_of_files_break_no_collector() {
    for collector in list() {
        let host = Fixture::new(&[]);
        for (index, path) in collector
            .reads
            .iter()
            .flat_map(|declared| planted(declared))
            .enumerate()
        {
            let free = !host.at(&path).exists() && host.at(&path).symlink_metadata().is_err();
            let reachable = host.at(&path).ancestors().skip(1).all(|above| {
                above.symlink_metadata().is_ok_and(|meta| meta.is_dir())
                    || above.symlink_metadata().is_err()
            });
            if free && reachable {
                match index % 2 {
                    0 => host.link(
                        &path,
                        path.rsplit('/').next().expect("a split has a last part"),
                    ),
                    _ => host.dir(&path),
                }
            }
        }
        let fact = host.collect(collector);
        let text = fact.to_string();
        assert!(
            !text.contains("broke") && !text.contains("\"timeout\""),
            "{}: {text:.300}",
            collector.name
        );
    }
}
