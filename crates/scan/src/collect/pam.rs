//! PAM stacks, each with what it includes put in place.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, drop_in, part};
use crate::facts::{Reason, Unknown};

/// The package's own stacks lie in the second, the administrator's in the first.
const DIRS: [&str; 2] = ["/etc/pam.d", "/usr/lib/pam.d"];

/// On Red Hat: which profile the stacks were made from, then one feature a line.
const AUTHSELECT: &str = "/etc/authselect/authselect.conf";

/// As deep as libpam itself follows (`PAM_SUBSTACK_MAX_LEVEL` 16), doubled for `@include`.
const DEPTH_MAX: usize = 32;

/// Entries of one stack. Real ones have dozens; files that include one another several times over
/// would grow without end.
const ENTRIES_MAX: usize = 10_000;

pub(super) const COLLECTOR: Collector = Collector {
    name: "pam",
    about: "PAM stacks with their includes expanded",
    reads: &["/etc/pam.d/*", "/usr/lib/pam.d/*", AUTHSELECT],
    patterns: &[
        FactPattern::closed("pam", Shape::Map, "PAM"),
        FactPattern::closed("pam.stacks", Shape::Map, "by service or common file"),
        FactPattern::closed("pam.authselect", Shape::Map, "what authselect was told"),
        FactPattern::closed(
            "pam.authselect.managed",
            Shape::Bool,
            "the stacks were made by authselect",
        ),
        FactPattern::closed(
            "pam.authselect.profile",
            Shape::Text,
            "sssd, local, minimal",
        ),
        FactPattern::closed("pam.authselect.features", Shape::List, "switched on"),
        FactPattern::closed("pam.authselect.features[]", Shape::Text, "with-faillock"),
        FactPattern::closed("pam.stacks[*]", Shape::List, "entries in order"),
        FactPattern::closed(
            "pam.stacks[*][].type",
            Shape::Text,
            "auth, account, password, session",
        ),
        FactPattern::closed(
            "pam.stacks[*][].control",
            Shape::Text,
            "required, [success=1 ...]",
        ),
        FactPattern::closed(
            "pam.stacks[*][].module",
            Shape::Text,
            "file name: pam_unix.so",
        ),
        FactPattern::closed("pam.stacks[*][].args", Shape::List, "arguments"),
        FactPattern::closed("pam.stacks[*][].file", Shape::Text, "where the line stands"),
    ],
    collect,
    ..Collector::DEFAULT
};

/// One line of a stack.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Entry {
        facility: String,
        control: String,
        module: String,
        args: Vec<String>,
    },
    /// `facility` is `None` for `@include`, which takes every type.
    Include {
        facility: Option<String>,
        file: String,
    },
}

struct File {
    path: String,
    lines: Result<Vec<Line>, Unknown>,
}

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut files = Map::new();
    let mut parsed = std::collections::BTreeMap::new();
    for path in drop_in::effective(context, &DIRS, "")? {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let lines = context
            .text(&path)
            .known()
            .and_then(|text| parse(&path, &text.unwrap_or_default()));
        parsed.insert(name, File { path, lines });
    }
    if parsed.is_empty() {
        let detail = format!("{}: no stacks", DIRS[0]);
        return Err(Unknown::new(Reason::Unsupported, detail));
    }
    for name in parsed.keys() {
        let mut stack = Vec::new();
        let expanded = expand(name, None, &parsed, DEPTH_MAX, &mut stack);
        let value = match expanded {
            Ok(()) => Value::Array(stack),
            Err(unknown) => unknown.to_value(),
        };
        files.insert(name.clone(), value);
    }
    Ok(json!({"stacks": files, "authselect": part(authselect(context))}))
}

fn authselect(context: &Context<'_>) -> Result<Value, Unknown> {
    let text = context.text(AUTHSELECT).known()?.unwrap_or_default();
    let mut words = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(match words.next() {
        Some(profile) => {
            json!({"managed": true, "profile": profile, "features": words.collect::<Vec<_>>()})
        }
        None => json!({"managed": false, "features": []}),
    })
}

/// Appends the entries of one file, `only` of one type where a typed include asks so.
fn expand(
    name: &str,
    only: Option<&str>,
    files: &std::collections::BTreeMap<String, File>,
    depth: usize,
    stack: &mut Vec<Value>,
) -> Result<(), Unknown> {
    let depth = depth.checked_sub(1).ok_or_else(|| {
        Unknown::new(
            Reason::Malformed,
            format!("{name}: includes itself or too deep"),
        )
    })?;
    let file = files.get(name).ok_or_else(|| {
        Unknown::new(
            Reason::Unreadable,
            format!("{}/{name}: included, not there", DIRS[0]),
        )
    })?;
    for line in file.lines.as_ref().map_err(Clone::clone)? {
        if stack.len() == ENTRIES_MAX {
            let detail = format!("{}: over {ENTRIES_MAX} entries", file.path);
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        match line {
            Line::Entry {
                facility,
                control,
                module,
                args,
            } => {
                if only.is_none_or(|only| only == facility) {
                    stack.push(
                        json!({"type": facility, "control": control, "module": module,
                                      "args": args, "file": file.path}),
                    );
                }
            }
            Line::Include { facility, file } => {
                let wanted = match (only, facility.as_deref()) {
                    (Some(only), Some(facility)) if only != facility => continue,
                    (only, facility) => facility.or(only),
                };
                expand(file, wanted, files, depth, stack)?;
            }
        }
    }
    Ok(())
}

/// pam.conf(5). A backslash joins lines, `#` begins a comment.
fn parse(path: &str, text: &str) -> Result<Vec<Line>, Unknown> {
    let text = text.replace("\\\n", " ");
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let parsed = parse_line(line).ok_or_else(|| {
            Unknown::new(Reason::Malformed, format!("{path}: line {}", index + 1))
        })?;
        lines.push(parsed);
    }
    Ok(lines)
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = words(line).into_iter();
    let first = words.next()?;
    if first == "@include" {
        return Some(Line::Include {
            facility: None,
            file: base_name(&words.next()?),
        });
    }
    // A leading dash: a module that is not installed is no fault.
    let facility = first
        .strip_prefix('-')
        .unwrap_or(&first)
        .to_ascii_lowercase();
    if !matches!(
        facility.as_str(),
        "auth" | "account" | "password" | "session"
    ) {
        return None;
    }
    let (control, module) = (words.next()?, words.next()?);
    if matches!(control.as_str(), "include" | "substack") {
        return Some(Line::Include {
            facility: Some(facility),
            file: base_name(&module),
        });
    }
    let args = words.map(|word| word.trim_matches(['[', ']']).to_owned());
    Some(Line::Entry {
        facility,
        control,
        module: base_name(&module),
        args: args.collect(),
    })
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// Words separated by blanks, with what stands in brackets kept together, brackets included.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut in_brackets = false;
    for letter in line.chars() {
        match letter {
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            _ => {}
        }
        if letter.is_ascii_whitespace() && !in_brackets {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(letter);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn includes_are_expanded_in_place_and_say_where_each_line_stands() {
        let host = Fixture::new(&[
            (
                "/etc/pam.d/common-auth",
                "# comment\nauth\t[success=1 default=ignore]\tpam_unix.so nullok # why\nauth requisite pam_deny.so\n",
            ),
            (
                "/etc/pam.d/common-session",
                "session required pam_unix.so\n",
            ),
            (
                "/etc/pam.d/sshd",
                "auth required /lib/security/pam_faillock.so preauth \\\n deny=5\n@include common-auth\nsession substack common-both\n-session optional pam_systemd.so\n",
            ),
            (
                "/usr/lib/pam.d/common-both",
                "auth required pam_env.so\nsession required pam_limits.so [a b]\n",
            ),
            ("/usr/lib/pam.d/sshd", "auth required pam_masked.so\n"),
        ]);
        let fact = host.collect(&COLLECTOR);
        let stack = fact["stacks"]["sshd"].as_array().unwrap();
        let told: Vec<String> = stack
            .iter()
            .map(|entry| {
                let text = |key: &str| entry[key].as_str().unwrap().to_owned();
                format!(
                    "{} {} {} {} {}",
                    text("type"),
                    text("control"),
                    text("module"),
                    entry["args"],
                    text("file")
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "auth required pam_faillock.so [\"preauth\",\"deny=5\"] /etc/pam.d/sshd",
                "auth [success=1 default=ignore] pam_unix.so [\"nullok\"] /etc/pam.d/common-auth",
                "auth requisite pam_deny.so [] /etc/pam.d/common-auth",
                "session required pam_limits.so [\"a b\"] /usr/lib/pam.d/common-both",
                "session optional pam_systemd.so [] /etc/pam.d/sshd",
            ]
        );
        assert_eq!(fact["stacks"]["common-auth"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_stack_that_cannot_be_followed_is_unknown_and_the_others_are_told() {
        let host = Fixture::new(&[
            ("/etc/pam.d/good", "auth required pam_unix.so\n"),
            ("/etc/pam.d/self", "auth include self\n"),
            ("/etc/pam.d/missing", "@include nowhere\n"),
            ("/etc/pam.d/noise", "\0\u{1}\n"),
            ("/etc/pam.d/half", "auth required\n"),
        ]);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["stacks"]["good"].as_array().unwrap().len(), 1);
        for name in ["self", "missing", "noise", "half"] {
            assert!(
                Unknown::from_value(&fact["stacks"][name]).is_some(),
                "{name}"
            );
        }
        let nothing = Fixture::new(&[]).collect(&COLLECTOR);
        assert!(Unknown::from_value(&nothing).is_some());
    }

    #[test]
    fn files_that_include_one_another_many_times_over_are_cut() {
        let twice = "auth include b\n".repeat(40) + "auth required pam_unix.so\n";
        let host = Fixture::new(&[
            ("/etc/pam.d/a", &twice),
            ("/etc/pam.d/b", &twice.replace(" b", " c")),
            ("/etc/pam.d/c", &twice.replace(" b", " d")),
            ("/etc/pam.d/d", "auth required pam_unix.so\n"),
        ]);
        let fact = host.collect(&COLLECTOR);
        let unknown = Unknown::from_value(&fact["stacks"]["a"]).unwrap();
        assert_eq!(unknown.reason, Reason::Truncated);
    }
}
