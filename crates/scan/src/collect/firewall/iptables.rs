//! Tables of the legacy iptables, from `iptables-legacy-save`.
//!
//! The kernel lists the tables that were ever used; without its list there are none, and nothing is
//! run that could create them.

use serde_json::{Map, Value};

use super::weaker;
use crate::{
    collect::{Context, refusal},
    facts::Unknown,
};

pub(super) const FIELDS: &[&str] = &[
    "tables",
    "rules",
    "input_policy",
    "output_policy",
    "forward_policy",
];

pub(super) fn legacy(context: &Context<'_>, ipv6: bool) -> Result<Map<String, Value>, Unknown> {
    let ask = |list: &str, program: &str| match context.text(list).known()? {
        Some(names) if !names.trim().is_empty() => {
            let ran = context.run(&[program], &[])?;
            Ok(Tables::parse(&refusal::answer(program, ran)?))
        }
        _ => Ok(Tables::default()),
    };
    let v4 = ask(
        "/proc/net/ip_tables_names",
        "/usr/sbin/iptables-legacy-save",
    )?;
    let v6 = ask(
        "/proc/net/ip6_tables_names",
        "/usr/sbin/ip6tables-legacy-save",
    )?;
    let mut fact = Map::new();
    fact.insert("tables".into(), (v4.tables + v6.tables).into());
    fact.insert("rules".into(), (v4.rules + v6.rules).into());
    for (chain, field) in [
        ("INPUT", "input_policy"),
        ("OUTPUT", "output_policy"),
        ("FORWARD", "forward_policy"),
    ] {
        let policy = match ipv6 {
            true => weaker(v4.policy(chain), v6.policy(chain)),
            false => v4.policy(chain),
        };
        fact.insert(field.into(), policy.into());
    }
    Ok(fact)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tables {
    tables: usize,
    rules: usize,
    /// Built-in chains of the table filter: name and policy.
    policies: Vec<(String, &'static str)>,
}

impl Tables {
    fn parse(text: &str) -> Self {
        let mut tables = Self::default();
        let mut table = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
                tables.tables += 1;
            } else if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split_whitespace();
                let (name, policy) = (words.next().unwrap_or_default(), words.next());
                let policy = match policy {
                    Some("DROP") => "drop",
                    Some("ACCEPT") => "accept",
                    // A chain of the user has a dash.
                    _ => continue,
                };
                if table == "filter" {
                    tables.policies.push((name.to_owned(), policy));
                }
            } else if line.starts_with("-A ") {
                tables.rules += 1;
            }
        }
        tables
    }

    fn policy(&self, chain: &str) -> &'static str {
        let found = self.policies.iter().find(|(name, _)| name == chain);
        found.map_or("none", |(_, policy)| policy)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        collect::{firewall::COLLECTOR, fixture::Fixture},
        facts::{Reason, Unknown},
    };

    const SAVED: &str = "# Generated\n*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n*filter\n:INPUT DROP [1:2]\n\
        :FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:mine - [0:0]\n-A INPUT -i lo -j ACCEPT\n-A mine -j DROP\nCOMMIT\n";

    #[test]
    fn policies_come_from_the_table_filter() {
        let host = Fixture::new(&[("/proc/net/ip_tables_names", "nat\nfilter\n")]).prints(
            "/usr/sbin/iptables-legacy-save",
            0,
            SAVED,
        );
        let fact = &host.collect(&COLLECTOR)["iptables"];
        assert_eq!((&fact["tables"], &fact["rules"]), (&2.into(), &2.into()));
        assert_eq!(fact["input_policy"], "drop");
        assert_eq!(fact["forward_policy"], "accept");
    }

    /// With IPv6 in use and no IPv6 table, half of the packets meet no filter.
    #[test]
    fn a_filter_for_ipv4_only_is_no_filter_where_ipv6_is_in_use() {
        let host = Fixture::new(&[
            ("/proc/net/ip_tables_names", "filter\n"),
            (
                "/proc/net/if_inet6",
                "00000000000000000000000000000001 01 80 10 80 lo\n",
            ),
        ])
        .prints("/usr/sbin/iptables-legacy-save", 0, SAVED);
        assert_eq!(host.collect(&COLLECTOR)["iptables"]["input_policy"], "none");
    }

    #[test]
    fn tables_that_nobody_could_list_are_unknown() {
        let host = Fixture::new(&[("/proc/net/ip_tables_names", "filter\n")]);
        let fact = &host.collect(&COLLECTOR)["iptables"];
        let unknown = Unknown::from_value(&fact["input_policy"]).unwrap();
        assert_eq!(unknown.reason, Reason::ToolMissing);
    }
}
