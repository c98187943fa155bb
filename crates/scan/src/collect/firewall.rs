//! Packet filters: nftables, the older iptables, and ufw's configuration.
//!
//! What the kernel does is asked of it; ufw's files say what ufw would set. Asking must not load a
//! kernel module, so `nft` is run only where nf_tables may be there already: without the module
//! there is no rule set, and that needs neither `nft` nor root.

mod firewalld;
mod iptables;
mod nftables;

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Privilege, Shape, part, shell_settings};
use crate::{
    facts::Unknown,
    target::{Found, Links},
};

const UFW: &str = "/usr/sbin/ufw";
const UFW_SWITCH: &str = "/etc/ufw/ufw.conf";
const UFW_DEFAULTS: &str = "/etc/default/ufw";

pub(super) const COLLECTOR: Collector = Collector {
    name: "firewall",
    about: "packet filters: nftables, iptables (legacy), ufw, firewalld",
    reads: &[
        "/proc/modules",
        "/proc/sys/kernel/osrelease",
        "/lib/modules/*/modules.builtin",
        "/proc/net/if_inet6",
        "/proc/net/ip_tables_names",
        "/proc/net/ip6_tables_names",
        "/usr/sbin/nft",
        "/usr/sbin/iptables",
        UFW,
        UFW_SWITCH,
        UFW_DEFAULTS,
        "/usr/sbin/firewalld",
        "/etc/firewalld/firewalld.conf",
        "/etc/firewalld/zones/*.xml",
        "/usr/lib/firewalld/zones/*.xml",
    ],
    runs: &[
        "/usr/sbin/nft -j list ruleset",
        "/usr/sbin/iptables-legacy-save",
        "/usr/sbin/ip6tables-legacy-save",
    ],
    privilege: Privilege::Partly(
        "firewall.nftables, firewall.iptables where their modules are loaded",
    ),
    patterns: &[
        FactPattern::closed("firewall", Shape::Map, "packet filters"),
        FactPattern::closed(
            "firewall.nftables",
            Shape::Map,
            "rule set of the kernel, rules made by iptables-nft, ufw and firewalld included",
        ),
        FactPattern::closed(
            "firewall.nftables.installed",
            Shape::Bool,
            "/usr/sbin/nft exists",
        ),
        FactPattern::closed("firewall.nftables.tables", Shape::Int, "tables"),
        FactPattern::closed("firewall.nftables.rules", Shape::Int, "rules"),
        FactPattern::closed(
            "firewall.nftables.input_policy",
            Shape::Text,
            "policy of the base chains: drop, accept or none; the weaker one of IPv4 and IPv6",
        ),
        FactPattern::closed("firewall.nftables.output_policy", Shape::Text, "likewise"),
        FactPattern::closed("firewall.nftables.forward_policy", Shape::Text, "likewise"),
        FactPattern::closed(
            "firewall.nftables.input_default",
            Shape::Text,
            "what happens to a packet that no condition fits: drop, reject, accept or none",
        ),
        FactPattern::closed("firewall.nftables.output_default", Shape::Text, "likewise"),
        FactPattern::closed("firewall.nftables.forward_default", Shape::Text, "likewise"),
        FactPattern::closed(
            "firewall.iptables",
            Shape::Map,
            "rules of the legacy backend; those of iptables-nft are in nftables",
        ),
        FactPattern::closed(
            "firewall.iptables.installed",
            Shape::Bool,
            "/usr/sbin/iptables exists",
        ),
        FactPattern::closed(
            "firewall.iptables.tables",
            Shape::Int,
            "tables, IPv4 and IPv6",
        ),
        FactPattern::closed(
            "firewall.iptables.rules",
            Shape::Int,
            "rules, IPv4 and IPv6",
        ),
        FactPattern::closed(
            "firewall.iptables.input_policy",
            Shape::Text,
            "policy of the table filter: drop, accept or none; the weaker one of IPv4 and IPv6",
        ),
        FactPattern::closed("firewall.iptables.output_policy", Shape::Text, "likewise"),
        FactPattern::closed("firewall.iptables.forward_policy", Shape::Text, "likewise"),
        FactPattern::closed(
            "firewall.firewalld",
            Shape::Map,
            "firewalld's configuration, not what is in force",
        ),
        FactPattern::closed(
            "firewall.firewalld.installed",
            Shape::Bool,
            "/usr/sbin/firewalld exists",
        ),
        FactPattern::closed(
            "firewall.firewalld.default_zone",
            Shape::Text,
            "DefaultZone",
        ),
        FactPattern::closed(
            "firewall.firewalld.target",
            Shape::Text,
            "of the default zone: default, %%REJECT%%, DROP or ACCEPT",
        ),
        FactPattern::closed(
            "firewall.firewalld.services",
            Shape::List,
            "that the default zone lets in",
        ),
        FactPattern::closed("firewall.firewalld.services[]", Shape::Text, "ssh"),
        FactPattern::closed(
            "firewall.ufw",
            Shape::Map,
            "ufw's configuration, not what is in force",
        ),
        FactPattern::closed(
            "firewall.ufw.installed",
            Shape::Bool,
            "/usr/sbin/ufw exists",
        ),
        FactPattern::closed(
            "firewall.ufw.enabled",
            Shape::Bool,
            "ENABLED=yes, and installed",
        ),
        FactPattern::closed(
            "firewall.ufw.default_input",
            Shape::Text,
            "drop, reject or accept",
        ),
        FactPattern::closed(
            "firewall.ufw.default_output",
            Shape::Text,
            "drop, reject or accept",
        ),
        FactPattern::closed(
            "firewall.ufw.default_forward",
            Shape::Text,
            "drop, reject or accept",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let ipv6 = ipv6_in_use(context)?;
    let nftables = nftables::ruleset(context).map(|ruleset| ruleset.fact(ipv6));
    let iptables = iptables::legacy(context, ipv6);
    Ok(json!({
        "nftables": with_installed(context, "/usr/sbin/nft", nftables, nftables::FIELDS),
        "iptables": with_installed(context, "/usr/sbin/iptables", iptables, iptables::FIELDS),
        "ufw": part(ufw(context)),
        "firewalld": part(firewalld::firewalld(context)),
    }))
}

/// Whether the tool exists is known even where its rules are not.
fn with_installed(
    context: &Context<'_>,
    program: &str,
    rules: Result<Map<String, Value>, Unknown>,
    fields: &[&str],
) -> Value {
    let stat = context.stat(program, Links::Follow).known();
    let mut fact = Map::new();
    fact.insert(
        "installed".into(),
        part(stat.map(|stat| stat.is_some().into())),
    );
    match rules {
        Ok(rules) => fact.extend(rules),
        Err(unknown) => {
            fact.extend(
                fields
                    .iter()
                    .map(|&field| (field.to_owned(), unknown.to_value())),
            );
        }
    }
    Value::Object(fact)
}

/// An interface with an IPv6 address, or a kernel that would not say.
fn ipv6_in_use(context: &Context<'_>) -> Result<bool, Unknown> {
    let addresses = context.text("/proc/net/if_inet6").known()?;
    Ok(addresses.is_some_and(|text| !text.trim().is_empty()))
}

/// Whether the kernel may have `module`: loaded, or built in. When its lists cannot be read it may.
fn kernel_may_have(context: &Context<'_>, module: &str) -> bool {
    let Found::Present(loaded) = context.text("/proc/modules") else {
        return true;
    };
    let Found::Present(release) = context.text("/proc/sys/kernel/osrelease") else {
        return true;
    };
    let Found::Present(builtin) =
        context.text(&format!("/lib/modules/{}/modules.builtin", release.trim()))
    else {
        return true;
    };
    let file = format!("/{module}.ko");
    loaded
        .lines()
        .any(|line| line.split(' ').next() == Some(module))
        || builtin.lines().any(|line| line.ends_with(&file))
}

/// The weaker policy: what protects IPv4 only does not protect.
fn weaker<'a>(left: &'a str, right: &'a str) -> &'a str {
    let rank = |policy| {
        ["none", "accept", "reject", "drop"]
            .iter()
            .position(|&known| known == policy)
    };
    if rank(left) <= rank(right) {
        left
    } else {
        right
    }
}

fn ufw(context: &Context<'_>) -> Result<Value, Unknown> {
    let installed = context.stat(UFW, Links::Follow).known()?.is_some();
    let mut settings = Map::new();
    if installed {
        for file in [UFW_SWITCH, UFW_DEFAULTS] {
            let text = context.text(file).known()?.unwrap_or_default();
            shell_settings::apply(file, &text, &mut settings)?;
        }
    }
    let policy = |key: &str| match settings.get(key) {
        Some(Value::String(policy)) => policy.to_ascii_lowercase().into(),
        Some(unknown) => unknown.clone(),
        None => "".into(),
    };
    let enabled = match settings.get("ENABLED") {
        Some(Value::String(switch)) => switch.eq_ignore_ascii_case("yes").into(),
        Some(unknown) => unknown.clone(),
        None => false.into(),
    };
    Ok(json!({
        "installed": installed,
        "enabled": enabled,
        "default_input": policy("DEFAULT_INPUT_POLICY"),
        "default_output": policy("DEFAULT_OUTPUT_POLICY"),
        "default_forward": policy("DEFAULT_FORWARD_POLICY"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collect::fixture::Fixture, facts::Reason};

    const BASE: [(&str, &str); 3] = [
        ("/proc/modules", "ext4 1 0 - Live 0x0\nnf_tables_set 1 0\n"),
        ("/proc/sys/kernel/osrelease", "6.1.0\n"),
        (
            "/lib/modules/6.1.0/modules.builtin",
            "kernel/net/ipv4/tcp.ko\n",
        ),
    ];

    /// A host that never had a filter needs neither nft nor root to know it.
    #[test]
    fn without_the_kernel_modules_there_are_no_rules() {
        let fact = Fixture::new(&BASE).collect(&COLLECTOR);
        for filter in ["nftables", "iptables"] {
            assert_eq!(fact[filter]["rules"], 0);
            assert_eq!(fact[filter]["input_policy"], "none");
            assert_eq!(fact[filter]["installed"], false);
        }
        assert_eq!(fact["ufw"]["enabled"], false);
    }

    /// Proves: RUL-4
    #[test]
    fn rules_that_nobody_could_list_are_unknown() {
        let mut files = BASE;
        files[0].1 = "nf_tables 1 0 - Live 0x0\n";
        let loaded = Fixture::new(&files);
        files[0].1 = "";
        files[2].1 = "kernel/net/netfilter/nf_tables.ko\n";
        let built_in = Fixture::new(&files);
        for host in [loaded, built_in, Fixture::new(&[])] {
            let fact = host.collect(&COLLECTOR);
            for field in nftables::FIELDS {
                let unknown = Unknown::from_value(&fact["nftables"][field]).unwrap();
                assert_eq!(unknown.reason, Reason::ToolMissing);
            }
            assert_eq!(fact["nftables"]["installed"], false);
        }
    }

    #[test]
    fn ufw_is_what_its_files_say_and_only_where_it_is_installed() {
        let files = [
            (UFW_SWITCH, "# x\nENABLED=yes\nLOGLEVEL=low\n"),
            (
                UFW_DEFAULTS,
                "IPV6=yes\nDEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_OUTPUT_POLICY=\"ACCEPT\"\n",
            ),
        ];
        let host = Fixture::new(&files);
        assert_eq!(host.collect(&COLLECTOR)["ufw"]["enabled"], false);
        host.write(UFW, b"");
        let expected = json!({
            "installed": true, "enabled": true, "default_input": "drop",
            "default_output": "accept", "default_forward": "",
        });
        assert_eq!(host.collect(&COLLECTOR)["ufw"], expected);
        host.write(UFW_SWITCH, b"ENABLED=$(cat /x)\n");
        let fact = host.collect(&COLLECTOR);
        assert!(Unknown::from_value(&fact["ufw"]["enabled"]).is_some());
    }
}
