//! Ansible's inventory as INI: `[group]`, `[group:children]`, `[group:vars]`, one host a line.

use super::{
    At, Read,
    ansible::{Groups, Variables, is_kept},
    range,
};

enum Section {
    Hosts(String),
    Children(String),
    Variables(String),
    /// After a heading that could not be read: its lines would be taken for something else.
    Skipped,
}

pub(super) fn read(file: &str, text: &str, read: &mut Read) {
    let mut groups = Groups::default();
    let mut section = Section::Hosts("ungrouped".to_owned());
    for (line, text) in (1..).zip(text.lines()) {
        let at = At {
            file: file.to_owned(),
            line,
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if groups.is_full() {
            read.refuse(
                &at,
                "too many hosts or groups for one import",
                "split the file",
            );
            return;
        }
        if text.starts_with('[') && text.ends_with(']') && !text.contains(char::is_whitespace) {
            section = heading(&text[1..text.len() - 1]).unwrap_or_else(|| {
                let what = format!("`{}` is no heading", text.escape_debug());
                read.refuse(&at, what, "write [group], [group:children] or [group:vars]");
                Section::Skipped
            });
            continue;
        }
        match &section {
            Section::Hosts(group) => host_line(group, text, &at, &mut groups, read),
            Section::Children(group) => groups.child(group, first_word(text)),
            Section::Variables(group) => match text.split_once('=') {
                Some((name, value)) => {
                    let (name, value) = (name.trim(), unquoted(value.trim()));
                    if is_kept(name, value, &at, read) {
                        groups.variable(group, name, value.to_owned(), &at);
                    }
                }
                None => read.refuse(&at, "a variable is written name=value", "mend this line"),
            },
            Section::Skipped => {}
        }
    }
    groups.into_drafts(read);
}

fn heading(text: &str) -> Option<Section> {
    match text.split_once(':') {
        None if !text.is_empty() => Some(Section::Hosts(text.to_owned())),
        Some((group, "children")) if !group.is_empty() => Some(Section::Children(group.to_owned())),
        Some((group, "vars")) if !group.is_empty() => Some(Section::Variables(group.to_owned())),
        _ => None,
    }
}

fn host_line(group: &str, text: &str, at: &At, groups: &mut Groups, read: &mut Read) {
    let Some(words) = words(text) else {
        return read.refuse(at, "a quote is not closed", "mend this line");
    };
    let mut words = words.into_iter();
    let pattern = words.next().unwrap_or_default();
    let mut variables = Variables::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            let what = format!("`{}` is no name=value", word.escape_debug());
            return read.refuse(at, what, "mend this line");
        };
        if is_kept(name, value, at, read) {
            variables.insert(name.to_owned(), (value.to_owned(), at.clone()));
        }
    }
    // `name:port`, where the colon is none of a range's and what stands before it no IPv6 address.
    let is_whole = |name: &str| {
        name.matches('[').count() == name.matches(']').count()
            && (name.contains('[') || !name.contains(':'))
    };
    let pattern = match pattern.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && is_whole(name) => {
            variables
                .entry("ansible_port".to_owned())
                .or_insert_with(|| (port.to_owned(), at.clone()));
            name.to_owned()
        }
        _ => pattern,
    };
    match range::expand(&pattern) {
        Ok(names) => {
            for name in names {
                groups.host(group, &name, at, variables.clone());
            }
        }
        Err(fault) => {
            let what = format!("host `{}`: {fault}", pattern.escape_debug());
            read.refuse(at, what, "mend this line");
        }
    }
}

fn first_word(text: &str) -> &str {
    text.split_ascii_whitespace().next().unwrap_or_default()
}

fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        let inside = text
            .strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote));
        if let Some(inside) = inside {
            return inside;
        }
    }
    text
}

/// Words as a shell would part them, and nothing else of a shell. `None`: a quote is not closed.
pub(super) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}
