//! The timed rollback: a script that runs on the host and puts back every captured state, unless it
//! is called off in time.
//!
//! Whoever renames `armed` first wins, the script or the one who calls it off: never both, never
//! neither. It lives in /run and in memory: a host that starts again in the meantime keeps what was
//! applied until `fix recover` reaches it. Content is written as octal escapes and every word is
//! quoted, so that no value is ever code.

use super::{Access, Action, Effect, Object, State, local::sysctl_path};

/// Below the root of the host.
pub(super) const DIR: &str = "/run/holdfast";
pub(super) const PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH";

/// Starts `$1/restore` detached from everything of ours, and returns once it runs. A manager of
/// services keeps it when a login session ends and takes what it started along.
pub(super) const START: &str = r#"
if [ -d /run/systemd/system ] && [ -n "$4" ] && command -v systemd-run >/dev/null 2>&1 &&
    systemd-run --quiet --collect --unit="holdfast-fix-$3" /bin/sh "$1/restore" "$2" "$1" 2>/dev/null
then :; else
    setsid /bin/sh "$1/restore" "$2" "$1" </dev/null >/dev/null 2>&1 &
fi
tries=0
while [ ! -s "$1/pid" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 50 ] || exit 1
    sleep 0.1
done
"#;

/// Ends the script in `$1` that was called off: it sleeps, in a process group of its own.
pub(super) const STOP: &str = r#"
kill -- "-$(cat "$1/pid")" 2>/dev/null
rm -rf "$1"
"#;

/// Waits until the script in `$1`, which has begun, has ended.
pub(super) const WAIT: &str = r#"
tries=0
while [ ! -e "$1/done" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 90 ] || exit 1
    sleep 1
done
"#;

/// The script: `$1` seconds, `$2` its directory. `root` stands before every path; with one that is
/// not empty nothing but files is touched.
pub(super) fn script(id: &str, effects: &[Effect], root: &str) -> String {
    let mut lines = vec![
        PATH.to_owned(),
        "umask 077".to_owned(),
        r#"echo "$$" > "$2/pid""#.to_owned(),
        r#"sleep "$1""#.to_owned(),
        r#"mv "$2/armed" "$2/fired" 2>/dev/null || { rm -rf "$2"; exit 0; }"#.to_owned(),
    ];
    for (step, effect) in effects.iter().enumerate().rev() {
        if let Some((object, before)) = effect.object() {
            lines.extend(restore(object, before, root, &format!("{id}-{step}")));
        }
    }
    if root.is_empty() {
        for effect in effects {
            if let Effect::Run(action @ Action::Reload { .. }) = effect {
                lines.push(action.command());
            }
        }
    }
    lines.push(r#"mv "$2/fired" "$2/done""#.to_owned());
    lines.push(String::new());
    lines.join("\n")
}

fn restore(object: &Object, before: &State, root: &str, tag: &str) -> Vec<String> {
    match (object, before) {
        (Object::File { path }, State::Absent) => vec![format!("rm -f {}", at(root, path))],
        (
            Object::File { path },
            State::File {
                content, access, ..
            },
        ) => {
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            let temporary = at(root, &format!("{dir}/.holdfast-{tag}.tmp"));
            let path = at(root, path);
            vec![
                format!("rm -f {temporary}"),
                format!("printf {} > {temporary} &&", octal(content)),
                format!("{} &&", grant(*access, &temporary)),
                format!("mv -f {temporary} {path}"),
                format!("if command -v restorecon >/dev/null 2>&1; then restorecon {path}; fi"),
            ]
        }
        (Object::Access { path }, State::Access(access)) => vec![grant(*access, &at(root, path))],
        (Object::Sysctl { key }, State::Sysctl { value }) => match sysctl_path(key) {
            Ok(path) => vec![format!(
                "printf {} > {}",
                octal(value.as_bytes()),
                at(root, &path)
            )],
            Err(_) => Vec::new(),
        },
        (Object::Unit { name }, State::Unit { boot, running, .. }) if root.is_empty() => {
            let name = quoted(name);
            let boot = match boot.as_str() {
                "enabled" => "enable",
                "masked" => "mask",
                "disabled" => "disable",
                _ => "unmask",
            };
            let run = if *running { "start" } else { "stop" };
            vec![
                format!("systemctl unmask -- {name}"),
                format!("systemctl {boot} -- {name}"),
                format!("systemctl {run} -- {name}"),
            ]
        }
        (Object::Module { name }, State::Module { loaded: true }) if root.is_empty() => {
            vec![format!("modprobe --ignore-install -- {}", quoted(name))]
        }
        _ => Vec::new(),
    }
}

fn grant(access: Access, path: &str) -> String {
    let Access { mode, uid, gid } = access;
    format!("chown {uid}:{gid} {path} && chmod {mode:04o} {path}")
}

fn at(root: &str, path: &str) -> String {
    quoted(&format!("{root}{path}"))
}

/// One word of the shell, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A format of printf(1) that prints exactly these bytes.
pub(super) fn octal(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    format!("'{escaped}'")
}
