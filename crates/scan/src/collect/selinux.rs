//! SELinux: whether the kernel has it, and what it does with a denial.

use serde_json::{Map, Value, json};

use super::{Collector, Context, FactPattern, Shape, part, rows};
use crate::{
    facts::{Reason, Unknown},
    target::{Found, Links},
};

const ENFORCE: &str = "/sys/fs/selinux/enforce";
const CONFIG: &str = "/etc/selinux/config";

pub(super) const COLLECTOR: Collector = Collector {
    name: "selinux",
    about: "SELinux mode, running and configured",
    reads: &["/sys/fs", ENFORCE, CONFIG],
    input_bytes_max: rows::CONFIG_BYTES_MAX,
    patterns: &[
        FactPattern::closed("selinux", Shape::Map, "SELinux"),
        FactPattern::closed(
            "selinux.present",
            Shape::Bool,
            "the running kernel has it active",
        ),
        FactPattern::closed(
            "selinux.mode",
            Shape::Text,
            "enforcing, permissive or disabled",
        ),
        FactPattern::closed(
            "selinux.config",
            Shape::Map,
            "settings of /etc/selinux/config",
        ),
        FactPattern::closed(
            "selinux.config[*]",
            Shape::Text,
            "value: SELINUX, SELINUXTYPE",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    let mode = mode(context);
    let present = mode.clone().map(|mode| json!(mode != "disabled"));
    Ok(json!({
        "present": part(present),
        "mode": part(mode.map(Value::from)),
        "config": part(config(context)),
    }))
}

/// As libselinux decides: without its filesystem it is disabled. Where `/sys` is not mounted
/// nobody can tell.
fn mode(context: &Context<'_>) -> Result<&'static str, Unknown> {
    match context.text(ENFORCE) {
        Found::Present(text) => match text.trim() {
            "1" => Ok("enforcing"),
            "0" => Ok("permissive"),
            other => {
                let shown: String = other.chars().take(20).collect();
                let detail = format!("{ENFORCE}: neither 0 nor 1: {shown}");
                Err(Unknown::new(Reason::Malformed, detail))
            }
        },
        Found::Absent if context.stat("/sys/fs", Links::Follow).known()?.is_some() => {
            Ok("disabled")
        }
        Found::Absent => Err(Unknown::new(Reason::Unreadable, "/sys/fs: not there")),
        Found::Unknown(unknown) => Err(unknown),
    }
}

fn config(context: &Context<'_>) -> Result<Value, Unknown> {
    let text = context.text(CONFIG).known()?.unwrap_or_default();
    let settings = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().into()));
    rows::collect::<_, Map<String, Value>>(settings, CONFIG).map(Value::Object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    #[test]
    fn the_mode_comes_from_the_kernel_and_the_config_stands_beside_it() {
        for (enforce, mode, present) in [
            (Some("1"), json!("enforcing"), json!(true)),
            (Some("0\n"), json!("permissive"), json!(true)),
            (None, json!("disabled"), json!(false)),
        ] {
            let host = Fixture::new(&[(
                CONFIG,
                "# SELINUX=x\nSELINUX=enforcing\nSELINUXTYPE = default\n",
            )]);
            host.dir("/sys/fs");
            if let Some(enforce) = enforce {
                host.write(ENFORCE, enforce.as_bytes());
            }
            let config = json!({"SELINUX": "enforcing", "SELINUXTYPE": "default"});
            let expected = json!({"present": present, "mode": mode, "config": config});
            assert_eq!(host.collect(&COLLECTOR), expected);
        }
    }

    #[test]
    fn without_sys_or_with_noise_the_mode_is_unknown() {
        for (text, reason) in [
            (None, Reason::Unreadable),
            (Some("\0\u{1}"), Reason::Malformed),
        ] {
            let host = Fixture::new(&[]);
            if let Some(text) = text {
                host.write(ENFORCE, text.as_bytes());
            }
            let fact = host.collect(&COLLECTOR);
            for part in ["present", "mode"] {
                let unknown = Unknown::from_value(&fact[part]).unwrap();
                assert_eq!(unknown.reason, reason, "{text:?}");
            }
        }
    }
}
