//! Whom each time daemon asks, from its own files.

use serde_json::Value;

use crate::{
    collect::{Context, globs, systemd_conf},
    facts::{Reason, Unknown},
};

/// Files of chrony altogether: one that includes itself ends here. Far above any real tree.
const FILES_MAX: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Servers {
    pub(super) servers: Vec<String>,
    pub(super) fallback: Vec<String>,
    pub(super) source_file: String,
}

/// chrony.conf(5): `server`, `pool` and `peer`, in what it includes too.
pub(super) fn chrony(context: &Context<'_>) -> Result<Servers, Unknown> {
    let mut servers = Servers::default();
    let Some(main) = first_of(context, &["/etc/chrony/chrony.conf", "/etc/chrony.conf"])? else {
        return Ok(servers);
    };
    let mut files = vec![main.to_owned()];
    let mut read = 0;
    while let Some(file) = files.pop() {
        read += 1;
        if read + files.len() > FILES_MAX {
            let detail = format!("{file}: included too deeply or too often");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        let text = context.text(&file).known()?.unwrap_or_default();
        servers.servers.extend(named(&text));
        for (directive, argument) in directives(&text) {
            if files.len() > FILES_MAX {
                break;
            }
            match directive.as_str() {
                "include" => files.extend(globs::expand(context, argument)?),
                "confdir" => files.extend(context.files_in(argument, ".conf")?),
                "sourcedir" => files.extend(context.files_in(argument, ".sources")?),
                _ => {}
            }
        }
    }
    main.clone_into(&mut servers.source_file);
    Ok(servers)
}

pub(super) fn timesyncd(context: &Context<'_>) -> Result<Servers, Unknown> {
    let settings = systemd_conf::settings(context, "timesyncd.conf", "Time")?;
    let list = |key: &str| -> Vec<String> {
        let value = settings
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default();
        value.split_whitespace().map(str::to_owned).collect()
    };
    Ok(Servers {
        servers: list("NTP"),
        fallback: list("FallbackNTP"),
        source_file: "/etc/systemd/timesyncd.conf".to_owned(),
    })
}

pub(super) fn ntpsec(context: &Context<'_>) -> Result<Servers, Unknown> {
    one_file(context, &["/etc/ntpsec/ntp.conf", "/etc/ntp.conf"])
}

pub(super) fn ntp(context: &Context<'_>) -> Result<Servers, Unknown> {
    one_file(context, &["/etc/ntp.conf"])
}

fn one_file(context: &Context<'_>, paths: &[&str]) -> Result<Servers, Unknown> {
    let mut servers = Servers::default();
    if let Some(path) = first_of(context, paths)? {
        let text = context.text(path).known()?.unwrap_or_default();
        servers.servers = named(&text).collect();
        path.clone_into(&mut servers.source_file);
    }
    Ok(servers)
}

fn first_of<'a>(context: &Context<'_>, paths: &[&'a str]) -> Result<Option<&'a str>, Unknown> {
    for path in paths {
        if context.text(path).known()?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn named(text: &str) -> impl Iterator<Item = String> {
    directives(text)
        .filter(|(directive, _)| matches!(directive.as_str(), "server" | "pool" | "peer"))
        .map(|(_, argument)| argument.to_owned())
}

/// First two words of each line that is no comment, the directive in lower case.
fn directives(text: &str) -> impl Iterator<Item = (String, &str)> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with(['#', '!', ';', '%']))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_ascii_lowercase(), words.next()?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{fixture::Fixture, time_sync::COLLECTOR};
    use serde_json::json;

    #[test]
    fn chrony_servers_come_from_included_files_too() {
        let host = Fixture::new(&[
            ("/usr/sbin/chronyd", ""),
            (
                "/etc/chrony/chrony.conf",
                "! server no\nPool a iburst\nconfdir /etc/chrony/conf.d\nsourcedir /etc/chrony/sources.d\ninclude /etc/more*.conf\n",
            ),
            ("/etc/chrony/conf.d/x.conf", "server b\n"),
            ("/etc/chrony/conf.d/x.bak", "server no\n"),
            ("/etc/chrony/sources.d/y.sources", "server c prefer\n"),
            ("/etc/more1.conf", "peer d\n# server no\nserver\n"),
        ]);
        let fact = host.collect(&COLLECTOR);
        let mut servers: Vec<_> = fact["servers"].as_array().unwrap().clone();
        servers.sort_by_key(ToString::to_string);
        assert_eq!(Value::Array(servers), json!(["a", "b", "c", "d"]));
    }

    #[test]
    fn a_file_that_includes_itself_leaves_the_servers_unknown() {
        let host = Fixture::new(&[
            ("/usr/sbin/chronyd", ""),
            ("/etc/chrony.conf", "include /etc/chrony.conf\nserver a\n"),
        ]);
        let unknown = Unknown::from_value(&host.collect(&COLLECTOR)["servers"]).unwrap();
        assert_eq!(unknown.reason, Reason::Truncated);
    }
}
