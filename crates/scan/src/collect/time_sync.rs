//! Time synchronisation: which daemons there are, which start by themselves, whom they ask, and
//! whether the one in use says that the clock is right.
//!
//! The kernel's own word (`adjtimex`) needs a system call without a safe interface and could not
//! be asked over SSH, so the daemon is asked: chrony and ntpd by their tools over the loopback
//! address (chronyc makes a socket file when it is not told an address), systemd-timesyncd by the
//! file it touches.

mod servers;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Collector, Context, FactPattern, Shape, part, refusal, rows, services};
use crate::{
    facts::{Reason, Unknown},
    target::Links,
};

/// systemd-timesyncd touches its file at every answer of a server, at most 34 minutes apart; a day
/// without one is an unsynchronised clock.
const MARK_SECONDS_MAX: i64 = 86_400;
const MARK: &str = "/run/systemd/timesync/synchronized";

const CHRONYC: &str = "/usr/bin/chronyc";
const CHRONYC_ARGS: &[&str] = &["-c", "-n", "-h", "127.0.0.1", "tracking"];
const NTPQ: &str = "/usr/bin/ntpq";
const NTPQ_ARGS: &[&str] = &["-n", "-c", "rv 0 leap", "127.0.0.1"];

struct Daemon {
    name: &'static str,
    units: &'static [&'static str],
    /// Programs that only this one brings. Empty where two share theirs: then the unit tells.
    programs: &'static [&'static str],
    synchronized: fn(&Context<'_>) -> Result<bool, Unknown>,
    servers: fn(&Context<'_>) -> Result<servers::Servers, Unknown>,
}

/// By how exactly each can say whether the clock is right.
const DAEMONS: [Daemon; 4] = [
    Daemon {
        name: "chrony",
        units: &["chrony.service", "chronyd.service"],
        programs: &["/usr/sbin/chronyd"],
        synchronized: by_chronyc,
        servers: servers::chrony,
    },
    Daemon {
        name: "systemd-timesyncd",
        units: &["systemd-timesyncd.service"],
        programs: &[
            "/usr/lib/systemd/systemd-timesyncd",
            "/lib/systemd/systemd-timesyncd",
        ],
        synchronized: by_mark,
        servers: servers::timesyncd,
    },
    Daemon {
        name: "ntpsec",
        units: &["ntpsec.service"],
        programs: &[],
        synchronized: by_ntpq,
        servers: servers::ntpsec,
    },
    Daemon {
        name: "ntp",
        units: &["ntp.service", "ntpd.service"],
        programs: &[],
        synchronized: by_ntpq,
        servers: servers::ntp,
    },
];

pub(super) const COLLECTOR: Collector = Collector {
    name: "time_sync",
    about: "time daemons, their servers, whether the clock is synchronised",
    reads: &[
        "/usr/sbin/chronyd",
        "/usr/lib/systemd/systemd-timesyncd",
        "/etc/systemd/system/**",
        "/run/systemd/{system,transient,generator*}/**",
        "/usr/local/lib/systemd/system/**",
        "/usr/lib/systemd/system/**",
        "/lib/systemd/system/**",
        "/etc/init.d/*",
        "/etc/rc[2345].d/*",
        "/etc/chrony/chrony.conf",
        "/etc/chrony.conf",
        "/etc/chrony/conf.d/*.conf",
        "/etc/chrony/sources.d/*.sources",
        "/run/chrony-dhcp/*.sources",
        "what chrony.conf includes",
        "/{etc,run,usr/local/lib,usr/lib}/systemd/timesyncd.conf",
        "/{etc,run,usr/local/lib,usr/lib}/systemd/timesyncd.conf.d/*.conf",
        "/etc/ntpsec/ntp.conf",
        "/etc/ntp.conf",
        MARK,
    ],
    runs: &[
        "/usr/bin/chronyc -c -n -h 127.0.0.1 tracking",
        "/usr/bin/ntpq -n -c rv 0 leap 127.0.0.1",
    ],
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("time_sync", Shape::Map, "time synchronisation"),
        FactPattern::closed("time_sync.daemons", Shape::List, "the four known daemons"),
        FactPattern::closed(
            "time_sync.daemons[].name",
            Shape::Text,
            "chrony, systemd-timesyncd, ntpsec or ntp",
        ),
        FactPattern::closed(
            "time_sync.daemons[].installed",
            Shape::Bool,
            "its program or unit exists",
        ),
        FactPattern::closed("time_sync.daemons[].enabled", Shape::Bool, "starts at boot"),
        FactPattern::closed(
            "time_sync.synchronized",
            Shape::Bool,
            "the daemon in use says so; unknown when it does not answer or there is none",
        ),
        FactPattern::closed(
            "time_sync.servers",
            Shape::List,
            "servers and pools of the daemon in use",
        ),
        FactPattern::closed("time_sync.servers[]", Shape::Text, "name or address"),
        FactPattern::closed(
            "time_sync.fallback_servers",
            Shape::List,
            "FallbackNTP of systemd-timesyncd, when set; the built-in ones are not known",
        ),
        FactPattern::closed(
            "time_sync.fallback_servers[]",
            Shape::Text,
            "name or address",
        ),
        FactPattern::closed(
            "time_sync.source_file",
            Shape::Text,
            "main file the servers come from",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let units: Vec<&str> = DAEMONS
        .iter()
        .flat_map(|daemon| daemon.units)
        .copied()
        .collect();
    let states = services::enabled_states(context, &units)?;
    let mut daemons = Vec::new();
    let mut in_use: Option<(&Daemon, bool)> = None;
    for daemon in &DAEMONS {
        let installed = is_installed(context, daemon, &states)?;
        let enabled = installed && is_enabled(daemon, &states);
        daemons.push(json!({"name": daemon.name, "installed": installed, "enabled": enabled}));
        let better = in_use.is_none_or(|(_, other_enabled)| enabled && !other_enabled);
        if installed && better {
            in_use = Some((daemon, enabled));
        }
    }
    let mut fact = json!({ "daemons": daemons });
    let Some((daemon, _)) = in_use else {
        let none = Unknown::new(
            Reason::ToolMissing,
            "no time daemon is installed that could tell",
        );
        fact["synchronized"] = none.to_value();
        fact["servers"] = json!([]);
        fact["fallback_servers"] = json!([]);
        return Ok(fact);
    };
    fact["synchronized"] = part((daemon.synchronized)(context).map(Value::from));
    match (daemon.servers)(context) {
        Ok(servers) => {
            fact["servers"] = servers.servers.into();
            fact["fallback_servers"] = servers.fallback.into();
            fact["source_file"] = servers.source_file.into();
        }
        Err(unknown) => {
            for field in ["servers", "fallback_servers", "source_file"] {
                fact[field] = unknown.to_value();
            }
        }
    }
    Ok(fact)
}

/// A second name of another daemon's unit is not an installation: ntpsec calls itself ntp as well.
fn is_installed(
    context: &Context<'_>,
    daemon: &Daemon,
    states: &BTreeMap<&str, &'static str>,
) -> Result<bool, Unknown> {
    for program in daemon.programs {
        if context.stat(program, Links::Follow).known()?.is_some() {
            return Ok(true);
        }
    }
    let has_unit = |unit: &&str| {
        states
            .get(unit)
            .is_some_and(|state| !matches!(*state, "alias" | "masked"))
    };
    Ok(daemon.programs.is_empty() && daemon.units.iter().any(has_unit))
}

fn is_enabled(daemon: &Daemon, states: &BTreeMap<&str, &'static str>) -> bool {
    let is_on = |unit: &&str| matches!(states.get(unit), Some(&("enabled" | "enabled-runtime")));
    daemon.units.iter().any(is_on)
}

/// The last field of the line is the leap status.
fn by_chronyc(context: &Context<'_>) -> Result<bool, Unknown> {
    let text = refusal::answer(
        "/usr/bin/chronyc tracking",
        context.run(&[CHRONYC], CHRONYC_ARGS)?,
    )?;
    match text.trim().rsplit(',').next() {
        Some("Normal" | "Insert second" | "Delete second") => Ok(true),
        Some("Not synchronised") => Ok(false),
        _ => Err(Unknown::new(
            Reason::Malformed,
            "/usr/bin/chronyc tracking: no leap status",
        )),
    }
}

fn by_mark(context: &Context<'_>) -> Result<bool, Unknown> {
    let Some(stat) = context.stat(MARK, Links::Follow).known()? else {
        return Ok(false);
    };
    let now = i64::try_from(context.now_seconds()).unwrap_or(i64::MAX);
    Ok(now.saturating_sub(stat.mtime_seconds) <= MARK_SECONDS_MAX)
}

/// `leap=00`, and `11` for a clock that is not synchronised, as in RFC 5905.
fn by_ntpq(context: &Context<'_>) -> Result<bool, Unknown> {
    let text = refusal::answer("/usr/bin/ntpq rv", context.run(&[NTPQ], NTPQ_ARGS)?)?;
    let leap = text
        .split([',', ' ', '\n'])
        .find_map(|word| word.trim().strip_prefix("leap="));
    match leap {
        Some("00" | "01" | "10") => Ok(true),
        Some("11") => Ok(false),
        _ => Err(Unknown::new(
            Reason::Malformed,
            "/usr/bin/ntpq rv: no leap indicator",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const TRACKING: &str = "/usr/bin/chronyc -c -n -h 127.0.0.1 tracking";
    const UNIT: &str = "[Install]\nWantedBy=multi-user.target\n";

    fn with_chrony() -> Fixture {
        let host = Fixture::new(&[
            ("/usr/sbin/chronyd", ""),
            ("/usr/lib/systemd/system/chrony.service", UNIT),
            (
                "/etc/chrony/chrony.conf",
                "pool 2.debian.pool.ntp.org iburst\n",
            ),
        ]);
        host.link(
            "/etc/systemd/system/multi-user.target.wants/chrony.service",
            "/usr/lib/systemd/system/chrony.service",
        );
        host
    }

    fn reason(fact: &Value) -> Option<Reason> {
        Unknown::from_value(fact).map(|unknown| unknown.reason)
    }

    #[test]
    fn chrony_is_installed_enabled_and_says_whether_the_clock_is_right() {
        for (leap, expected) in [("Normal", true), ("Not synchronised", false)] {
            let line = format!(
                "D5F61E9B,1.2.3.4,3,1700000000.0,0.0,0.0,0.0,-1.0,0.0,0.1,0.02,0.001,64.5,{leap}\n"
            );
            let fact = with_chrony().prints(TRACKING, 0, &line).collect(&COLLECTOR);
            assert_eq!(fact["synchronized"], expected);
            assert_eq!(
                fact["daemons"][0],
                json!({"name": "chrony", "installed": true, "enabled": true})
            );
            assert_eq!(fact["daemons"][1]["installed"], false);
            assert_eq!(fact["servers"], json!(["2.debian.pool.ntp.org"]));
            assert_eq!(fact["source_file"], "/etc/chrony/chrony.conf");
        }
    }

    /// Proves: RUL-4
    #[test]
    fn a_daemon_that_does_not_answer_leaves_the_clock_unknown() {
        for (status, output, expected) in [
            (1, "506 Cannot talk to daemon\n", Reason::Unreadable),
            (0, "", Reason::Malformed),
            (0, "\0\u{1},x", Reason::Malformed),
        ] {
            let fact = with_chrony()
                .prints(TRACKING, status, output)
                .collect(&COLLECTOR);
            assert_eq!(reason(&fact["synchronized"]), Some(expected));
        }
        let none = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(reason(&none["synchronized"]), Some(Reason::ToolMissing));
        assert_eq!(none["servers"], json!([]));
    }

    #[test]
    fn timesyncd_is_believed_by_its_file() {
        let host = Fixture::new(&[
            ("/usr/lib/systemd/systemd-timesyncd", ""),
            ("/usr/lib/systemd/system/systemd-timesyncd.service", UNIT),
            (
                "/etc/systemd/timesyncd.conf",
                "[Time]\nNTP=a b\nFallbackNTP=c\n",
            ),
        ]);
        let fact = host.collect(&COLLECTOR);
        assert_eq!(fact["synchronized"], false);
        assert_eq!(
            fact["daemons"][1],
            json!({"name": "systemd-timesyncd", "installed": true, "enabled": false})
        );
        assert_eq!(
            (&fact["servers"], &fact["fallback_servers"]),
            (&json!(["a", "b"]), &json!(["c"]))
        );
        host.write(MARK, b"");
        assert_eq!(host.collect(&COLLECTOR)["synchronized"], true);
    }

    #[test]
    fn ntpsec_under_the_name_of_ntp_is_one_daemon() {
        let host = Fixture::new(&[
            ("/usr/lib/systemd/system/ntpsec.service", UNIT),
            (
                "/etc/ntpsec/ntp.conf",
                "pool 0.debian.pool.ntp.org iburst\nserver time.example\n",
            ),
        ]);
        host.link(
            "/etc/systemd/system/ntp.service",
            "/usr/lib/systemd/system/ntpsec.service",
        );
        host.link(
            "/etc/systemd/system/multi-user.target.wants/ntpsec.service",
            "/usr/lib/systemd/system/ntpsec.service",
        );
        let host = host.prints("/usr/bin/ntpq -n -c rv 0 leap 127.0.0.1", 0, "leap=00\n");
        let fact = host.collect(&COLLECTOR);
        assert_eq!(
            fact["daemons"][2],
            json!({"name": "ntpsec", "installed": true, "enabled": true})
        );
        assert_eq!(fact["daemons"][3]["installed"], false);
        assert_eq!(fact["synchronized"], true);
        assert_eq!(
            fact["servers"],
            json!(["0.debian.pool.ntp.org", "time.example"])
        );
    }
}
