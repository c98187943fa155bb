//! The audit system: rules the kernel has, rules that come back at boot, settings of its daemon.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, part, refusal, rows};
use crate::{
    facts::{Reason, Unknown},
    target::Links,
};

const PROGRAMS: &[&str] = &["/usr/sbin/auditctl", "/sbin/auditctl"];
const DAEMONS: [&str; 2] = ["/usr/sbin/auditd", "/sbin/auditd"];
const RULES_DIR: &str = "/etc/audit/rules.d";
const CONFIG: &str = "/etc/audit/auditd.conf";

pub(super) const COLLECTOR: Collector = Collector {
    name: "audit",
    about: "audit rules in the kernel and on disk, settings of auditd",
    reads: &[
        "/usr/sbin/auditd",
        "/sbin/auditd",
        "/etc/audit/rules.d/*.rules",
        CONFIG,
    ],
    runs: &["/usr/sbin/auditctl -l", "/usr/sbin/auditctl -s"],
    privilege: Privilege::Root,
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("audit", Shape::Map, "the audit system"),
        FactPattern::closed("audit.installed", Shape::Bool, "auditd exists"),
        FactPattern::closed(
            "audit.running",
            Shape::Map,
            "what the kernel has, from auditctl",
        ),
        FactPattern::closed("audit.running.rules", Shape::List, "rules in order"),
        FactPattern::closed(
            "audit.running.rules[]",
            Shape::Text,
            "as auditctl -l prints it: -w /etc/passwd -p wa -k identity",
        ),
        FactPattern::closed(
            "audit.running.enabled",
            Shape::Int,
            "0 off, 1 on, 2 locked until reboot",
        ),
        FactPattern::closed("audit.running.status", Shape::Map, "numbers of auditctl -s"),
        FactPattern::closed(
            "audit.running.status[*]",
            Shape::Int,
            "failure, pid, backlog_limit, lost",
        ),
        FactPattern::closed(
            "audit.persistent",
            Shape::Map,
            "what augenrules loads at boot",
        ),
        FactPattern::closed(
            "audit.persistent.rules",
            Shape::List,
            "lines in the order of loading",
        ),
        FactPattern::closed(
            "audit.persistent.rules[].text",
            Shape::Text,
            "one rule, single blanks",
        ),
        FactPattern::closed(
            "audit.persistent.rules[].file",
            Shape::Text,
            "where it stands",
        ),
        FactPattern::closed(
            "audit.config",
            Shape::Map,
            "auditd.conf, keys in lower case",
        ),
        FactPattern::closed("audit.config[*]", Shape::Text, "value"),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut installed = false;
    for daemon in DAEMONS {
        installed |= context.stat(daemon, Links::Follow).known()?.is_some();
    }
    Ok(json!({
        "installed": installed,
        "running": part(running(context)),
        "persistent": part(persistent(context)),
        "config": part(config(context)),
    }))
}

fn running(context: &Context<'_>) -> Result<Value, Unknown> {
    let ask = |option: &str| {
        let command = format!("{} {option}", PROGRAMS[0]);
        refusal::answer(&command, context.run(PROGRAMS, &[option])?)
    };
    let rules = rules_of(&ask("-l")?)?;
    let status = status_of(&ask("-s")?);
    let enabled = status.get("enabled").cloned().ok_or_else(|| {
        let detail = format!("{} -s: does not say whether it is enabled", PROGRAMS[0]);
        Unknown::new(Reason::Malformed, detail)
    })?;
    Ok(json!({"rules": rules, "enabled": enabled, "status": status}))
}

fn rules_of(text: &str) -> Result<Vec<String>, Unknown> {
    let lines = text.lines().map(single_blanks);
    rows::collect(lines.filter(|line| line.starts_with('-')), PROGRAMS[0])
}

/// `enabled 1` a line; before version 2.3 all in one line as `enabled=1`.
fn status_of(text: &str) -> Map<String, Value> {
    let mut status = Map::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word, words.peek().copied()),
        };
        if let Some(Ok(number)) = value.map(str::parse::<i64>) {
            status.insert(key.to_owned(), number.into());
        }
    }
    status
}

/// As augenrules joins them: files by name, comments and empty lines left out.
fn persistent(context: &Context<'_>) -> Result<Value, Unknown> {
    let mut rules = Vec::new();
    for file in context.files_in(RULES_DIR, ".rules")? {
        let text = context.text(&file).known()?.unwrap_or_default();
        let lines = text.lines().map(single_blanks);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        for text in lines {
            rules.push(json!({"text": text, "file": file}));
            rows::check(rules.len(), &file)?;
        }
    }
    Ok(json!({ "rules": rules }))
}

fn config(context: &Context<'_>) -> Result<Value, Unknown> {
    let text = context.text(CONFIG).known()?.unwrap_or_default();
    let settings = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim().into()));
    rows::collect::<_, Map<String, Value>>(settings, CONFIG).map(Value::Object)
}

fn single_blanks(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const STATUS: &str = "enabled 1\nfailure 1\npid 713\nrate_limit 0\nbacklog_limit 8192\nlost 0\n\
        backlog 0\nbacklog_wait_time 60000\nbacklog_wait_time_actual 0\nloginuid_immutable 0 unlocked\n";

    fn reason(fact: &Value) -> Option<Reason> {
        Unknown::from_value(fact).map(|unknown| unknown.reason)
    }

    #[test]
    fn running_and_persistent_rules_and_the_config_are_read() {
        let host = Fixture::new(&[
            ("/usr/sbin/auditd", ""),
            (
                "/etc/audit/rules.d/10-base.rules",
                "## first\n-D\n-b 8192\n",
            ),
            (
                "/etc/audit/rules.d/50-id.rules",
                "\n-w  /etc/passwd\t-p wa -k identity\n",
            ),
            ("/etc/audit/rules.d/99.rules.off", "-e 2\n"),
            (
                CONFIG,
                "# x\nMax_Log_File = 8\n##name = mydomain\nspace_left_action = SYSLOG\n",
            ),
        ])
        .prints(
            "/usr/sbin/auditctl -l",
            0,
            "-w /etc/passwd -p wa -k identity\n",
        )
        .prints("/usr/sbin/auditctl -s", 0, STATUS);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["installed"], true);
        assert_eq!(
            fact["running"]["rules"],
            json!(["-w /etc/passwd -p wa -k identity"])
        );
        assert_eq!(fact["running"]["enabled"], 1);
        assert_eq!(fact["running"]["status"]["backlog_limit"], 8192);
        assert_eq!(
            fact["persistent"]["rules"],
            json!([
                {"text": "-D", "file": "/etc/audit/rules.d/10-base.rules"},
                {"text": "-b 8192", "file": "/etc/audit/rules.d/10-base.rules"},
                {"text": "-w /etc/passwd -p wa -k identity", "file": "/etc/audit/rules.d/50-id.rules"},
            ])
        );
        assert_eq!(
            fact["config"],
            json!({"max_log_file": "8", "space_left_action": "SYSLOG"})
        );
    }

    #[test]
    fn a_kernel_without_rules_is_known_to_have_none() {
        let host = Fixture::new(&[])
            .prints("/usr/sbin/auditctl -l", 0, "No rules\n")
            .prints(
                "/usr/sbin/auditctl -s",
                0,
                "AUDIT_STATUS: enabled=0 flag=1 pid=0\n",
            );
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["running"]["rules"], json!([]));
        assert_eq!(fact["running"]["enabled"], 0);
    }

    /// Proves: RUL-4
    #[test]
    fn what_auditctl_would_not_tell_is_unknown_and_the_disk_is_read_all_the_same() {
        let missing = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(reason(&missing["running"]), Some(Reason::ToolMissing));
        assert_eq!(missing["persistent"]["rules"], json!([]));
        for (list, status, expected) in [
            ((4, ""), (0, STATUS), Reason::Unreadable),
            ((0, "No rules\n"), (1, ""), Reason::Unreadable),
            ((0, "No rules\n"), (0, "\0\u{1}\n"), Reason::Malformed),
            ((0, "No rules\n"), (0, "enabled yes\n"), Reason::Malformed),
        ] {
            let host = Fixture::new(&[])
                .prints("/usr/sbin/auditctl -l", list.0, list.1)
                .prints("/usr/sbin/auditctl -s", status.0, status.1);
            assert_eq!(reason(&host.collect(&COLLECTOR)["running"]), Some(expected));
        }
    }
}
