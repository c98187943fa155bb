//! What a fix does to a host, as data: a closed list of kinds of step.
//!
//! Decoded here, with every name and value checked, so that whoever applies a step meets nothing
//! that could be an option, a second line or a way out of a directory. Nothing here touches a host:
//! applying belongs to [`crate::fix`].

use super::{
    decode::{Decoder, mode, scalar},
    fault::{Fault, suggestion},
    operator::number,
    yaml::{Fields, Node},
};

/// Steps of one fix. The widest of our own has eight.
const STEPS_MAX: usize = 64;
/// Names that a step accepts as owner or group, the first of which is set.
const NAMES_MAX: usize = 8;
/// Bytes of one value: a line of a configuration file.
const VALUE_BYTES_MAX: usize = 1024;
/// Bytes of a name: systemd's limit for units, above that of users and modules.
const NAME_BYTES_MAX: usize = 255;
/// `PATH_MAX` of Linux.
const PATH_BYTES_MAX: usize = 4096;

/// One step of a fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Sysctl(Sysctl),
    File(FileAccess),
    Sshd(SshdSetting),
    Service(ServiceState),
    Module(BlockedModule),
}

/// A kernel parameter, running and at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Dotted. With a part `*` it stands for every running key of that form but the loopback's, and
    /// nothing is written for the next start.
    pub key: String,
    pub value: Wanted,
}

/// A value, or a bound that a better value may stay within.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Exactly(String),
    AtLeast(i64),
    /// 1 to this: in sshd and in the kernel 0 turns a limit off.
    AtMost(i64),
}

/// Mode, owner and group of files that are there. Content is not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccess {
    pub place: Place,
    /// Bits that may stay; the others are taken. Never adds one.
    pub mode_at_most: Option<u32>,
    /// Adds the sticky bit, which only takes rights away.
    pub sticky: bool,
    /// Owners that may stay; any other becomes the first.
    pub owners: Vec<String>,
    /// Groups that may stay; any other becomes the first that the host has.
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Path(String),
    /// Matches of a glob that the rule itself asks about; links among them are left alone.
    Glob(String),
}

/// One setting of sshd, in a file of its own that sshd reads before its main file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshdSetting {
    pub keyword: String,
    pub value: Wanted,
}

/// What a unit does at boot, and at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    pub unit: String,
    pub boot: Option<Boot>,
    pub running: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    Enabled,
    Disabled,
    Masked,
}

impl Boot {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Masked => "masked",
        }
    }
}

/// A module that modprobe(8) is told never to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedModule {
    /// With `_`, as the kernel writes it.
    pub name: String,
}

const KINDS: [&str; 5] = ["sysctl", "file", "sshd", "service", "module"];

pub(super) fn steps(node: &Node, decoder: &Decoder<'_>) -> Result<Vec<Step>, Fault> {
    let list = node.list("`apply`")?;
    if list.is_empty() || list.len() > STEPS_MAX {
        let what = format!("`apply` has {} steps, wanted 1 to {STEPS_MAX}", list.len());
        return Err(Fault::at(node.at, what));
    }
    list.iter().map(|item| step(item, decoder)).collect()
}

fn step(node: &Node, decoder: &Decoder<'_>) -> Result<Step, Fault> {
    let map = node.map("a step of `apply`")?;
    let [(key, body)] = map else {
        let what = format!("a step of `apply` has {} kinds, wanted one", map.len());
        return Err(Fault::at(node.at, what).next(format!("write one of {}", KINDS.join(", "))));
    };
    match key.name.as_str() {
        "sysctl" => sysctl(body, decoder).map(Step::Sysctl),
        "file" => file(body, decoder).map(Step::File),
        "sshd" => sshd(body, decoder).map(Step::Sshd),
        "service" => service(body).map(Step::Service),
        "module" => module(body).map(Step::Module),
        other => Err(Fault::at(key.at, format!("unknown kind of step `{other}`"))
            .next(suggestion(other, &KINDS))),
    }
}

fn sysctl(node: &Node, decoder: &Decoder<'_>) -> Result<Sysctl, Fault> {
    let fields = node.fields("a step `sysctl`", &["key", "value", "at_least", "at_most"])?;
    let key = fields.need("key")?;
    let text = key.text("`key`")?;
    let stars = text.split('.').filter(|part| *part == "*").count();
    let proper = if stars == 1 {
        is_sysctl_key(&text.replacen('*', "x", 1))
    } else {
        is_sysctl_key(text)
    };
    if !proper {
        return Err(Fault::at(
            key.at,
            format!("`{}` is no kernel parameter", text.escape_debug()),
        )
        .next("write it with dots, for example net.ipv4.ip_forward"));
    }
    Ok(Sysctl {
        key: text.to_owned(),
        value: wanted(node, &fields, decoder)?,
    })
}

fn file(node: &Node, decoder: &Decoder<'_>) -> Result<FileAccess, Fault> {
    let known = ["path", "glob", "mode_at_most", "sticky", "owner", "group"];
    let fields = node.fields("a step `file`", &known)?;
    let place = match (fields.get("path"), fields.get("glob")) {
        (Some(path), None) => Place::Path(plain_path(path, "`path`")?),
        (None, Some(glob)) => Place::Glob(plain_path(glob, "`glob`")?),
        _ => {
            return Err(
                Fault::at(node.at, "a step `file` wants `path` or `glob`").next("give one of them")
            );
        }
    };
    let mode_at_most = fields
        .get("mode_at_most")
        .map(|bits| mode(decoder.operand(bits)?, "`mode_at_most`"))
        .transpose()?;
    let sticky = match fields.get("sticky") {
        Some(flag) => flag.truth("`sticky`")?,
        None => false,
    };
    let access = FileAccess {
        place,
        mode_at_most,
        sticky,
        owners: accounts(fields.get("owner"), "`owner`")?,
        groups: accounts(fields.get("group"), "`group`")?,
    };
    let does = access.mode_at_most.is_some() || access.sticky;
    if !does && access.owners.is_empty() && access.groups.is_empty() {
        return Err(Fault::at(node.at, "a step `file` that changes nothing")
            .next("give `mode_at_most`, `owner` or `group`"));
    }
    Ok(access)
}

fn sshd(node: &Node, decoder: &Decoder<'_>) -> Result<SshdSetting, Fault> {
    let known = ["keyword", "value", "at_least", "at_most"];
    let fields = node.fields("a step `sshd`", &known)?;
    let keyword = fields.need("keyword")?;
    let text = keyword.text("`keyword`")?;
    // These three begin something that goes beyond their own line.
    let structural = ["match", "include", "subsystem"];
    if !is_keyword(text) || structural.contains(&text.to_ascii_lowercase().as_str()) {
        let what = format!("`{}` is no setting of sshd for a fix", text.escape_debug());
        return Err(Fault::at(keyword.at, what).next("write a keyword of sshd_config(5)"));
    }
    Ok(SshdSetting {
        keyword: text.to_owned(),
        value: wanted(node, &fields, decoder)?,
    })
}

fn service(node: &Node) -> Result<ServiceState, Fault> {
    let fields = node.fields("a step `service`", &["unit", "boot", "running"])?;
    let unit = fields.need("unit")?;
    let name = unit.text("`unit`")?;
    if !is_unit(name) {
        let what = format!("`{}` is no unit", name.escape_debug());
        return Err(Fault::at(unit.at, what).next("write its full name, for example cups.service"));
    }
    let boot = match fields.get("boot") {
        None => None,
        Some(node) => {
            let text = node.text("`boot`")?;
            let all = [Boot::Enabled, Boot::Disabled, Boot::Masked];
            let found = all.into_iter().find(|boot| boot.name() == text);
            Some(found.ok_or_else(|| {
                Fault::at(node.at, format!("`boot` is `{}`", text.escape_debug()))
                    .next(suggestion(text, &all.map(Boot::name)))
            })?)
        }
    };
    let running = match fields.get("running") {
        Some(flag) => Some(flag.truth("`running`")?),
        None => None,
    };
    if boot.is_none() && running.is_none() {
        return Err(Fault::at(node.at, "a step `service` that changes nothing")
            .next("give `boot` or `running`"));
    }
    if boot == Some(Boot::Masked) && running == Some(true) {
        return Err(Fault::at(node.at, "a masked unit cannot be started"));
    }
    Ok(ServiceState {
        unit: name.to_owned(),
        boot,
        running,
    })
}

fn module(node: &Node) -> Result<BlockedModule, Fault> {
    let fields = node.fields("a step `module`", &["blocked"])?;
    let name = fields.need("blocked")?;
    let text = name.text("`blocked`")?;
    if !is_module(text) {
        let what = format!("`{}` is no kernel module", text.escape_debug());
        return Err(Fault::at(name.at, what));
    }
    Ok(BlockedModule {
        name: text.replace('-', "_"),
    })
}

fn wanted(node: &Node, fields: &Fields<'_>, decoder: &Decoder<'_>) -> Result<Wanted, Fault> {
    let given = ["value", "at_least", "at_most"].map(|name| fields.get(name));
    let bound = |operand: &Node| {
        let operand = decoder.operand(operand)?;
        number(&operand.to_json())
            .filter(|number| number.fract() == 0.0 && (0.0..=2e9).contains(number))
            .and_then(|number| number.to_string().parse().ok())
            .ok_or_else(|| Fault::at(operand.at, "a bound of a step is no whole number from 0"))
    };
    match given {
        [Some(value), None, None] => {
            let operand = decoder.operand(value)?;
            let text = match scalar(operand, "`value`")? {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            if !is_line(&text) {
                let what = format!(
                    "the value `{}` is not one line of plain text",
                    text.escape_debug()
                );
                return Err(Fault::at(value.at, what).next("use printable ASCII, no line break"));
            }
            Ok(Wanted::Exactly(text))
        }
        [None, Some(least), None] => Ok(Wanted::AtLeast(bound(least)?)),
        [None, None, Some(most)] => Ok(Wanted::AtMost(bound(most)?)),
        _ => Err(Fault::at(
            node.at,
            "a step wants exactly one of `value`, `at_least` and `at_most`",
        )),
    }
}

fn accounts(node: Option<&Node>, what: &str) -> Result<Vec<String>, Fault> {
    let Some(node) = node else {
        return Ok(Vec::new());
    };
    let names = match node.texts(what) {
        Ok(names) => names,
        Err(_) => vec![node.text(what)?.to_owned()],
    };
    if names.is_empty() || names.len() > NAMES_MAX {
        return Err(Fault::at(
            node.at,
            format!("{what} wants 1 to {NAMES_MAX} names"),
        ));
    }
    match names.iter().find(|name| !is_account(name)) {
        Some(name) => Err(Fault::at(
            node.at,
            format!(
                "`{}` is no name of an account or group",
                name.escape_debug()
            ),
        )),
        None => Ok(names),
    }
}

fn plain_path(node: &Node, what: &str) -> Result<String, Fault> {
    let text = node.text(what)?;
    if is_path(text) {
        return Ok(text.to_owned());
    }
    let shown = text.escape_debug();
    Err(
        Fault::at(node.at, format!("`{shown}` is not a plain absolute path"))
            .next("write it absolute, without `//`, `.` and `..`"),
    )
}

/// Absolute, normalised, printable, and not the root itself.
pub(crate) fn is_path(text: &str) -> bool {
    let parts = |rest: &str| rest.split('/').all(|part| !["", ".", ".."].contains(&part));
    text.len() <= PATH_BYTES_MAX
        && !text.chars().any(char::is_control)
        && text.strip_prefix('/').is_some_and(parts)
}

/// Dotted; a `/` stands for a dot inside a name, as in sysctl(8).
pub(crate) fn is_sysctl_key(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-/:@".contains(&b);
    text.len() <= NAME_BYTES_MAX
        && text.contains('.')
        && text.split('.').all(|part| {
            !part.is_empty() && part.bytes().all(allowed) && part.bytes().any(|b| b != b'/')
        })
}

pub(crate) fn is_unit(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":_.\\@-".contains(&b);
    let suffixes = [
        ".service",
        ".socket",
        ".timer",
        ".path",
        ".target",
        ".mount",
        ".automount",
    ];
    text.len() <= NAME_BYTES_MAX
        && !text.starts_with(['-', '.'])
        && text.bytes().all(allowed)
        && suffixes
            .iter()
            .any(|suffix| text.len() > suffix.len() && text.ends_with(suffix))
}

pub(crate) fn is_module(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn is_keyword(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A value that is a line of its own wherever it is written.
fn is_line(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= VALUE_BYTES_MAX
        && text.trim() == text
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

pub(crate) fn is_account(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}
