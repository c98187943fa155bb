//! The rule set of nftables, from `nft -j list ruleset`.

use serde_json::{Map, Value};

use super::{kernel_may_have, weaker};
use crate::{
    collect::{Context, refusal},
    facts::{Reason, Unknown},
};

const PROGRAMS: &[&str] = &["/usr/sbin/nft", "/sbin/nft"];
const COMMAND: &str = "/usr/sbin/nft -j list ruleset";

/// Chains looked through for one base chain. Each costs a pass over the rules; real rule sets jump
/// into some tens.
const CHAINS_MAX: usize = 1_000;

pub(super) const FIELDS: &[&str] = &[
    "tables",
    "rules",
    "input_policy",
    "output_policy",
    "forward_policy",
    "input_default",
    "output_default",
    "forward_default",
];

pub(super) fn ruleset(context: &Context<'_>) -> Result<Ruleset, Unknown> {
    if !kernel_may_have(context, "nf_tables") {
        return Ok(Ruleset(Vec::new()));
    }
    let ran = context.run(PROGRAMS, &["-j", "list", "ruleset"])?;
    Ruleset::parse(&refusal::answer(COMMAND, ran)?)
}

/// The objects that nft lists, in order.
pub(super) struct Ruleset(Vec<Value>);

impl Ruleset {
    fn parse(text: &str) -> Result<Self, Unknown> {
        let malformed = |why: &str| Unknown::new(Reason::Malformed, format!("{COMMAND}: {why}"));
        let mut document: Value =
            serde_json::from_str(text).map_err(|error| malformed(&error.to_string()))?;
        match document.get_mut("nftables").map(Value::take) {
            Some(Value::Array(objects)) => Ok(Self(objects)),
            _ => Err(malformed("no list `nftables`")),
        }
    }

    pub(super) fn fact(&self, ipv6: bool) -> Map<String, Value> {
        let mut fact = Map::new();
        fact.insert("tables".into(), self.objects("table").count().into());
        fact.insert("rules".into(), self.objects("rule").count().into());
        for hook in ["input", "output", "forward"] {
            fact.insert(
                format!("{hook}_policy"),
                self.either(hook, ipv6, Self::policy).into(),
            );
        }
        for hook in ["input", "output", "forward"] {
            fact.insert(
                format!("{hook}_default"),
                self.either(hook, ipv6, Self::default).into(),
            );
        }
        fact
    }

    fn objects(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter_map(move |object| object.get(kind))
    }

    fn either<'a>(
        &'a self,
        hook: &str,
        ipv6: bool,
        ask: fn(&'a Self, &Value) -> &'a str,
    ) -> &'a str {
        let v4 = self.strictest(hook, "ip", ask);
        if ipv6 {
            weaker(v4, self.strictest(hook, "ip6", ask))
        } else {
            v4
        }
    }

    /// A packet must get through every base chain of its hook, so the strictest one decides.
    fn strictest<'a>(
        &'a self,
        hook: &str,
        family: &str,
        ask: fn(&'a Self, &Value) -> &'a str,
    ) -> &'a str {
        let mut strictest = "none";
        for chain in self.objects("chain") {
            let fits = chain["hook"] == hook
                && chain["type"] == "filter"
                && (chain["family"] == family || chain["family"] == "inet");
            if fits {
                let answer = ask(self, chain);
                if weaker(strictest, answer) == strictest {
                    strictest = answer;
                }
            }
        }
        strictest
    }

    fn policy(&self, chain: &Value) -> &'static str {
        if chain["policy"] == "drop" {
            "drop"
        } else {
            "accept"
        }
    }

    fn default(&self, chain: &Value) -> &'static str {
        self.unconditional(chain, &chain["name"], &mut Vec::new())
            .unwrap_or_else(|| self.policy(chain))
    }

    /// The verdict that every packet meets which fits no condition before it. `seen` are chains that
    /// were looked through and gave none: a first verdict ends the search, so to look again would
    /// find none again.
    fn unconditional<'a>(
        &'a self,
        of: &Value,
        name: &'a Value,
        seen: &mut Vec<&'a Value>,
    ) -> Option<&'static str> {
        if seen.contains(&name) || seen.len() == CHAINS_MAX {
            return None;
        }
        seen.push(name);
        self.objects("rule")
            .filter(|rule| {
                rule["family"] == of["family"]
                    && rule["table"] == of["table"]
                    && rule["chain"] == *name
            })
            .find_map(|rule| self.unconditional_rule(of, rule, seen))
    }

    fn unconditional_rule<'a>(
        &'a self,
        of: &Value,
        rule: &'a Value,
        seen: &mut Vec<&'a Value>,
    ) -> Option<&'static str> {
        for statement in rule["expr"].as_array()? {
            let verdict = match statement.as_object()?.keys().next()?.as_str() {
                // Neither lets a packet through nor stops it.
                "counter" | "log" => None,
                "drop" => Some("drop"),
                "reject" => Some("reject"),
                "accept" => Some("accept"),
                kind @ ("jump" | "goto") => {
                    self.unconditional(of, &statement[kind]["target"], seen)
                }
                _ => return None,
            };
            if verdict.is_some() {
                return verdict;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(family: &str, name: &str, hook: &str, policy: &str) -> Value {
        json!({"chain": {"family": family, "table": "t", "name": name, "handle": 1, "type": "filter",
                         "hook": hook, "prio": 0, "policy": policy}})
    }

    fn rule(family: &str, chain: &str, statements: Value) -> Value {
        json!({"rule": {"family": family, "table": "t", "chain": chain, "handle": 2, "expr": statements}})
    }

    fn check(objects: &[Value], ipv6: bool, policy: &str, default: &str) {
        let text = json!({"nftables": objects}).to_string();
        let fact = Ruleset::parse(&text).unwrap().fact(ipv6);
        assert_eq!(fact["input_policy"], policy, "{text}");
        assert_eq!(fact["input_default"], default, "{text}");
    }

    #[test]
    fn the_strictest_chain_of_a_family_and_the_weaker_family_decide() {
        check(&[], true, "none", "none");
        check(
            &[chain("inet", "in", "input", "drop")],
            true,
            "drop",
            "drop",
        );
        check(
            &[chain("inet", "in", "forward", "drop")],
            true,
            "none",
            "none",
        );
        let v4 = chain("ip", "in", "input", "drop");
        check(std::slice::from_ref(&v4), true, "none", "none");
        check(std::slice::from_ref(&v4), false, "drop", "drop");
        check(
            &[v4.clone(), chain("ip6", "in", "input", "accept")],
            true,
            "accept",
            "accept",
        );
        check(
            &[v4, chain("inet", "fail2ban", "input", "accept")],
            false,
            "drop",
            "drop",
        );
        let nat = json!({"chain": {"family": "ip", "table": "t", "name": "n", "type": "nat", "hook": "input", "policy": "drop"}});
        check(&[nat], false, "none", "none");
    }

    #[test]
    fn a_last_rule_without_condition_counts_like_a_policy() {
        let accept = chain("inet", "in", "input", "accept");
        let matched = json!([{"match": {"op": "in"}}, {"accept": null}]);
        let open = rule("inet", "in", matched.clone());
        let close = rule(
            "inet",
            "in",
            json!([{"counter": {"packets": 0}}, {"log": {}}, {"reject": null}]),
        );
        check(&[accept.clone(), open.clone()], true, "accept", "accept");
        check(&[accept.clone(), open, close], true, "accept", "reject");
        let drop = chain("inet", "in", "input", "drop");
        let jump = rule("inet", "in", json!([{"jump": {"target": "all"}}]));
        let all = rule("inet", "all", json!([{"accept": null}]));
        check(&[drop.clone(), jump.clone(), all], true, "drop", "accept");
        let itself = rule("inet", "all", json!([{"jump": {"target": "all"}}]));
        check(&[drop.clone(), jump, itself], true, "drop", "drop");
        check(
            &[
                drop,
                rule("inet", "in", json!([{"limit": {}}, {"accept": null}])),
            ],
            true,
            "drop",
            "drop",
        );
    }

    #[test]
    fn output_that_is_no_ruleset_is_malformed() {
        for text in [
            "",
            "{}",
            "[]",
            "{\"nftables\": {}}",
            "\0",
            "{\"nftables\": [",
        ] {
            let reason = Ruleset::parse(text).err().map(|unknown| unknown.reason);
            assert_eq!(reason, Some(Reason::Malformed), "{text}");
        }
        check(
            &[json!(1), json!({"chain": []}), json!({"rule": null})],
            true,
            "none",
            "none",
        );
    }
}
