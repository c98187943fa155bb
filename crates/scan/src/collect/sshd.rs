//! What the SSH server enforces, from `sshd -T`, and what its files say under `Match`.
//!
//! The effective settings come from sshd itself, since only it knows its defaults. It answers for
//! a connection that no `Match` block fits; those blocks are read from the files. Where it cannot
//! answer (not root, no host keys, `/run/sshd` missing because it never ran, an error in the
//! configuration) the effective settings are unknown with its own words, never guessed from files.

mod files;

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, part, refusal, rows};
use crate::{
    facts::{Reason, Unknown},
    target::{Links, Ran},
};

const PROGRAMS: &[&str] = &["/usr/sbin/sshd"];

pub(super) const COLLECTOR: Collector = Collector {
    name: "sshd",
    about: "SSH server: effective settings and Match blocks",
    reads: &[
        "/usr/sbin/sshd",
        "/etc/ssh/sshd_config",
        "/etc/ssh/sshd_config.d/*.conf",
        "what Include names",
    ],
    runs: &["/usr/sbin/sshd -T", "/usr/sbin/sshd -G"],
    privilege: Privilege::Partly("sshd.effective, sshd.effective_lists"),
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("sshd", Shape::Map, "the SSH server"),
        FactPattern::closed("sshd.installed", Shape::Bool, "/usr/sbin/sshd exists"),
        FactPattern::closed(
            "sshd.effective",
            Shape::Map,
            "settings in force outside of Match, keys in lower case",
        ),
        FactPattern::closed(
            "sshd.effective[*]",
            Shape::Text,
            "value as sshd -T prints it; of a repeated key all values, joined with spaces",
        ),
        FactPattern::closed(
            "sshd.effective_lists",
            Shape::Map,
            "the same settings as lists",
        ),
        FactPattern::closed(
            "sshd.effective_lists[*]",
            Shape::List,
            "one element a value; algorithm lists split at commas",
        ),
        FactPattern::closed("sshd.effective_lists[*][]", Shape::Text, "one value"),
        FactPattern::closed(
            "sshd.match_blocks",
            Shape::List,
            "Match blocks of all files, in order",
        ),
        FactPattern::closed(
            "sshd.match_blocks[].criteria",
            Shape::Text,
            "what follows Match; for a block inside an included file, after the outer criteria",
        ),
        FactPattern::closed(
            "sshd.match_blocks[].settings",
            Shape::Map,
            "keys in lower case",
        ),
        FactPattern::closed(
            "sshd.match_blocks[].settings[*]",
            Shape::Text,
            "the first value of the block, which is the one sshd takes",
        ),
        FactPattern::closed("sshd.match_blocks[].file", Shape::Text, "where it begins"),
        FactPattern::closed("sshd.match_blocks[].line", Shape::Int, "where it begins"),
        FactPattern::closed("sshd.config_files", Shape::List, "files read, in order"),
        FactPattern::closed("sshd.config_files[]", Shape::Text, "one path"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    if context.stat(PROGRAMS[0], Links::Follow).known()?.is_none() {
        return Ok(json!({
            "installed": false, "effective": {}, "effective_lists": {},
            "match_blocks": [], "config_files": [],
        }));
    }
    let settings = effective(context);
    let of =
        |form: fn(&Settings) -> Value| part(settings.as_ref().map(form).map_err(Unknown::clone));
    let (blocks, paths) = match files::read(context) {
        Ok(files) => (files.match_blocks.into(), files.paths.into()),
        Err(unknown) => (unknown.to_value(), unknown.to_value()),
    };
    Ok(json!({
        "installed": true, "effective": of(Settings::joined), "effective_lists": of(Settings::lists),
        "match_blocks": blocks, "config_files": paths,
    }))
}

/// `-T` first: every version has it. `-G` (since 9.3) wants neither host keys nor `/run/sshd`, so
/// it answers for a server that never ran; when it cannot either, the first refusal is the story.
fn effective(context: &Context<'_>) -> Result<Settings, Unknown> {
    let first = settings_of("-T", context.run(PROGRAMS, &["-T"])?);
    match first {
        Ok(settings) => Ok(settings),
        Err(refusal) => settings_of("-G", context.run(PROGRAMS, &["-G"])?).map_err(|_| refusal),
    }
}

fn settings_of(option: &str, ran: Ran) -> Result<Settings, Unknown> {
    let command = format!("{} {option}", PROGRAMS[0]);
    let settings = Settings::parse(&refusal::answer(&command, ran)?);
    // Every version prints it. Anything without it is not the output of sshd, or not all of it.
    if !settings.0.contains_key("permitrootlogin") {
        return Err(Unknown::new(
            Reason::Malformed,
            format!("{command}: no permitrootlogin in its output"),
        ));
    }
    Ok(settings)
}

/// Keys in lower case, each with its values in the order of the output.
struct Settings(Map<String, Value>);

/// Settings whose one value is a list of names.
const COMMA_LISTS: [&str; 10] = [
    "ciphers",
    "macs",
    "kexalgorithms",
    "hostkeyalgorithms",
    "hostbasedacceptedalgorithms",
    "hostbasedacceptedkeytypes",
    "pubkeyacceptedalgorithms",
    "pubkeyacceptedkeytypes",
    "casignaturealgorithms",
    "gssapikexalgorithms",
];

/// Settings that sshd prints on one line with spaces between.
const SPACE_LISTS: [&str; 4] = [
    "authorizedkeysfile",
    "authenticationmethods",
    "ipqos",
    "pubkeyauthoptions",
];

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Map::new();
        for line in text.lines() {
            let (key, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            if key.is_empty() {
                continue;
            }
            let values = settings
                .entry(key.to_ascii_lowercase())
                .or_insert_with(|| json!([]));
            if let Value::Array(values) = values {
                values.push(value.trim().into());
            }
        }
        Self(settings)
    }

    fn texts(values: &Value) -> impl Iterator<Item = &str> {
        values
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    fn joined(&self) -> Value {
        let join = |values| Self::texts(values).collect::<Vec<_>>().join(" ").into();
        self.0
            .iter()
            .map(|(key, values)| (key.clone(), join(values)))
            .collect::<Map<String, Value>>()
            .into()
    }

    fn lists(&self) -> Value {
        let split = |key: &str, values| -> Value {
            let separator = if COMMA_LISTS.contains(&key) {
                ','
            } else if SPACE_LISTS.contains(&key) {
                ' '
            } else {
                '\n'
            };
            Self::texts(values)
                .flat_map(|value| value.split(separator))
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .collect()
        };
        self.0
            .iter()
            .map(|(key, values)| (key.clone(), split(key, values)))
            .collect::<Map<String, Value>>()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const OUTPUT: &str = "port 22\nport 2222\npermitrootlogin without-password\n\
        ciphers aes256-gcm@openssh.com,aes128-ctr\nbanner none\nacceptenv LANG\nacceptenv LC_*\n\
        authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\nversionaddendum\n\
        subsystem sftp /usr/lib/openssh/sftp-server -f AUTH\n";

    fn host() -> Fixture {
        Fixture::new(&[
            ("/usr/sbin/sshd", "an ELF file"),
            ("/etc/ssh/sshd_config", "Port 22\n"),
        ])
    }

    fn reason(fact: &Value) -> Option<Reason> {
        Unknown::from_value(fact).map(|unknown| unknown.reason)
    }

    #[test]
    fn effective_settings_come_from_sshd_and_repeated_keys_stay_whole() {
        let fact = host()
            .prints("/usr/sbin/sshd -T", 0, OUTPUT)
            .collect(&COLLECTOR);
        assert_eq!(fact["effective"]["permitrootlogin"], "without-password");
        assert_eq!(fact["effective"]["port"], "22 2222");
        assert_eq!(fact["effective"]["versionaddendum"], "");
        let lists = &fact["effective_lists"];
        assert_eq!(lists["port"], json!(["22", "2222"]));
        assert_eq!(lists["acceptenv"], json!(["LANG", "LC_*"]));
        assert_eq!(
            lists["ciphers"],
            json!(["aes256-gcm@openssh.com", "aes128-ctr"])
        );
        assert_eq!(lists["authorizedkeysfile"].as_array().unwrap().len(), 2);
        assert_eq!(lists["subsystem"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_host_without_sshd_has_no_settings_and_that_is_known() {
        let fact = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(fact["installed"], false);
        assert_eq!(fact["effective"], json!({}));
    }

    /// Proves: RUL-4
    #[test]
    fn settings_that_sshd_would_not_tell_are_unknown() {
        let missing = host().collect(&COLLECTOR);
        assert_eq!(reason(&missing["effective"]), Some(Reason::ToolMissing));
        assert_eq!(
            reason(&missing["effective_lists"]),
            Some(Reason::ToolMissing)
        );
        assert_eq!(missing["match_blocks"], json!([]));
        let refused =
            host()
                .prints("/usr/sbin/sshd -T", 255, "")
                .prints("/usr/sbin/sshd -G", 1, OUTPUT);
        assert_eq!(
            Unknown::from_value(&refused.collect(&COLLECTOR)["effective"])
                .unwrap()
                .detail,
            "/usr/sbin/sshd -T: ended with status 255 and no reason"
        );
    }

    #[test]
    fn an_sshd_that_never_ran_is_asked_the_second_way() {
        let host =
            host()
                .prints("/usr/sbin/sshd -T", 255, "")
                .prints("/usr/sbin/sshd -G", 0, OUTPUT);
        assert_eq!(host.collect(&COLLECTOR)["effective"]["banner"], "none");
    }

    #[test]
    fn output_that_is_not_the_whole_configuration_is_malformed() {
        for text in ["", "port 22\n", "\0\u{1}\u{7f}", " \n \n"] {
            let host =
                host()
                    .prints("/usr/sbin/sshd -T", 0, text)
                    .prints("/usr/sbin/sshd -G", 1, "");
            let fact = host.collect(&COLLECTOR);
            assert_eq!(
                reason(&fact["effective"]),
                Some(Reason::Malformed),
                "{text:?}"
            );
        }
    }
}
