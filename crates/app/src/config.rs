//! Configuration: one TOML file, then the environment, then flags, each overriding the one before.
//!
//! Unknown keys are refused: a misspelt key that is silently ignored is a setting that silently
//! does not hold.

use std::{
    env, fmt, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::Deserialize;

use crate::{
    alerts,
    cli::{Global, Output},
    drains::{self, Configured, FileDrain},
    exit::Refusal,
    named_file,
};

pub(crate) mod events;
pub(crate) mod node;
pub(crate) mod server;
pub(crate) mod store;

/// Longest configuration file read, in bytes. Arbitrary; a full one is about 2 KiB.
const FILE_LEN_MAX: u64 = 256 * 1024;

/// Where a value in force came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File,
    Environment,
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// A value in force and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Every setting in force.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The file that was read, if any.
    pub(crate) file: Option<PathBuf>,
    /// None where no home directory tells a default; see [`Config::data_dir`].
    pub(crate) data_dir: Setting<Option<PathBuf>>,
    pub(crate) output: Setting<Output>,
    pub(crate) scan_walk: Setting<bool>,
    pub(crate) scan_rules_dir: Setting<Option<PathBuf>>,
    pub(crate) journal_strict: Setting<bool>,
    pub(crate) store: store::Elsewhere,
    pub(crate) node: node::Node,
    pub(crate) events_enabled: Setting<bool>,
    pub(crate) events_listen: Setting<SocketAddr>,
    pub(crate) events_retention: events::Retention,
    pub(crate) events_drains: Vec<Configured>,
    pub(crate) server: server::Server,
    pub(crate) alert_receivers: Vec<alerts::Configured>,
    /// The record that a command is to show. Asked for with each command, and no setting.
    pub(crate) wait_for: Option<wal::Lsn>,
}

/// One key: its name in the file, its environment variable, what it means.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) environment: &'static str,
    pub(crate) example: &'static str,
    pub(crate) about: &'static str,
}

/// Every key, in the order of `config show`.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        environment: "HOLDFAST_DATA_DIR",
        example: "\"/var/lib/holdfast\"",
        about: "where everything is kept; for root /var/lib/holdfast, else ~/.local/state/holdfast",
    },
    Key {
        name: "output",
        environment: "HOLDFAST_OUTPUT",
        example: "\"table\"",
        about: "how results are printed: table, json or csv",
    },
    Key {
        name: "scan.walk",
        environment: "HOLDFAST_SCAN_WALK",
        example: "true",
        about: "walk the whole file system; without it the rules that need it are not assessed",
    },
    Key {
        name: "scan.rules_dir",
        environment: "HOLDFAST_SCAN_RULES_DIR",
        example: "\"/etc/holdfast/rules\"",
        about: "directory of the site's own rules, judged beside the built-in ones",
    },
    Key {
        name: "journal.strict",
        environment: "HOLDFAST_JOURNAL_STRICT",
        example: "false",
        about: "sync twice: then what was not acknowledged is never there after a loss of power",
    },
    Key {
        name: "store.postgres",
        environment: "HOLDFAST_STORE_POSTGRES",
        example: "\"postgres://holdfast@db.example/holdfast?sslmode=verify-full\"",
        about: "a PostgreSQL database to keep the tables in, shared with other machines",
    },
    Key {
        name: "store.postgres_password_file",
        environment: "HOLDFAST_STORE_POSTGRES_PASSWORD_FILE",
        example: "\"/etc/holdfast/postgres.password\"",
        about: "a file with the password, unless the URL or PGPASSWORD has it",
    },
    Key {
        name: "node.coordinator",
        environment: "HOLDFAST_NODE_COORDINATOR",
        example: "\"etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379/holdfast?ttl=5s\"",
        about: "who has its lease writes, and another takes over by itself; etcds:// for TLS",
    },
    Key {
        name: "node.coordinator_password_file",
        environment: "HOLDFAST_NODE_COORDINATOR_PASSWORD_FILE",
        example: "\"/etc/holdfast/etcd.password\"",
        about: "a file with the password of the coordinator's ?user=NAME",
    },
    Key {
        name: "node.coordinator_ca_file",
        environment: "HOLDFAST_NODE_COORDINATOR_CA_FILE",
        example: "\"/etc/holdfast/etcd-ca.crt\"",
        about: "who signed the coordinator's certificate, PEM; unless named, the well-known authorities",
    },
    Key {
        name: "events.enabled",
        environment: "HOLDFAST_EVENTS_ENABLED",
        example: "true",
        about: "take events while `holdfast up` runs",
    },
    Key {
        name: "events.listen",
        environment: "HOLDFAST_EVENTS_LISTEN",
        example: "\"127.0.0.1:4318\"",
        about: "where events are taken over HTTP, on this machine only; 4318 is OTLP's port",
    },
    Key {
        name: "events.retain_bytes",
        environment: "HOLDFAST_EVENTS_RETAIN_BYTES",
        example: "\"8GiB\"",
        about: "beyond it the oldest events go, except those that a drain has yet to send",
    },
    Key {
        name: "events.retain_age",
        environment: "HOLDFAST_EVENTS_RETAIN_AGE",
        example: "\"none\"",
        about: "age beyond which events go too, such as 30d; none: whatever their age",
    },
    Key {
        name: "events.ceiling_bytes",
        environment: "HOLDFAST_EVENTS_CEILING_BYTES",
        example: "\"none\"",
        about: "most that the log of events may take, drains or not; none: what the disk has",
    },
    Key {
        name: "events.on_full",
        environment: "HOLDFAST_EVENTS_ON_FULL",
        example: "\"refuse\"",
        about: "at the ceiling: refuse new events, or drop-oldest, those a drain needs excepted",
    },
    Key {
        name: "server.enabled",
        environment: "HOLDFAST_SERVER_ENABLED",
        example: "true",
        about: "serve the HTTP interface and the console while `holdfast up` runs",
    },
    Key {
        name: "server.listen",
        environment: "HOLDFAST_SERVER_LISTEN",
        example: "\"127.0.0.1:8420\"",
        about: "where the HTTP interface and the console are; off this machine only with TLS",
    },
    Key {
        name: "server.tls",
        environment: "HOLDFAST_SERVER_TLS",
        example: "\"auto\"",
        about: "on, off, or auto: where another machine can reach it, and where a certificate is named",
    },
    Key {
        name: "server.tls_cert",
        environment: "HOLDFAST_SERVER_TLS_CERT",
        example: "\"/etc/holdfast/server.crt\"",
        about: "certificate chain, PEM; unless named, one is made in DATA_DIR/keys at the first start",
    },
    Key {
        name: "server.tls_key",
        environment: "HOLDFAST_SERVER_TLS_KEY",
        example: "\"/etc/holdfast/server.key\"",
        about: "private key of the certificate, PEM; both files are read again when they change",
    },
    Key {
        name: "server.url",
        environment: "HOLDFAST_SERVER_URL",
        example: "\"https://first.example.org:8420\"",
        about: "where others find it; told by nodes that stand by. Unless set: the address that it listens on",
    },
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileConfig {
    data_dir: Option<PathBuf>,
    output: Option<String>,
    #[serde(default)]
    scan: FileScan,
    #[serde(default)]
    journal: FileJournal,
    #[serde(default)]
    store: store::FileStore,
    #[serde(default)]
    node: node::FileNode,
    #[serde(default)]
    events: FileEvents,
    #[serde(default)]
    server: server::FileServer,
    #[serde(default)]
    alerts: FileAlerts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAlerts {
    #[serde(default)]
    receiver: Vec<alerts::setting::FileReceiver>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileScan {
    walk: Option<bool>,
    rules_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJournal {
    strict: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEvents {
    enabled: Option<bool>,
    listen: Option<String>,
    retain_bytes: Option<String>,
    retain_age: Option<String>,
    ceiling_bytes: Option<String>,
    on_full: Option<String>,
    #[serde(default)]
    drain: Vec<FileDrain>,
}

impl Config {
    /// Reads the file and the environment and lays the flags over them.
    pub(crate) fn load(global: &Global) -> Result<Self, Refusal> {
        let (file, values) = read_file(global.config.as_deref())?;
        let config = Self {
            data_dir: data_dir(global, &values)?,
            output: output(global, &values, file.as_deref())?,
            scan_walk: truth("HOLDFAST_SCAN_WALK", values.scan.walk, true)?,
            scan_rules_dir: rules_dir(&values),
            journal_strict: truth("HOLDFAST_JOURNAL_STRICT", values.journal.strict, false)?,
            store: store::elsewhere(&values.store)?,
            node: node::node(&values.node, file.as_deref())?,
            events_enabled: truth("HOLDFAST_EVENTS_ENABLED", values.events.enabled, true)?,
            events_listen: listen(&values, file.as_deref())?,
            events_retention: events::retention(&values.events, file.as_deref())?,
            events_drains: drains::configured(&values.events.drain, file.as_deref())?,
            server: server::server(&values.server, file.as_deref())?,
            alert_receivers: alerts::setting::configured(&values.alerts.receiver, file.as_deref())?,
            wait_for: global.wait_for.map(wal::Lsn::new),
            file,
        };
        Ok(config)
    }

    /// What an acknowledgement says, in every journal.
    pub(crate) const fn mode(&self) -> wal::Mode {
        if self.journal_strict.value {
            wal::Mode::Strict
        } else {
            wal::Mode::Ordinary
        }
    }

    /// The data directory, for the commands that need one.
    pub(crate) fn data_dir(&self) -> Result<&Path, Refusal> {
        self.data_dir.value.as_deref().ok_or_else(|| {
            Refusal::new("no data directory: HOME is not set").next("pass --data-dir DIR")
        })
    }
}

fn read_file(named: Option<&Path>) -> Result<(Option<PathBuf>, FileConfig), Refusal> {
    let Some(path) = named.map(Path::to_owned).or_else(default_file) else {
        return Ok((None, FileConfig::default()));
    };
    let refuse = |what: &str| {
        Refusal::new(format!("configuration {} {what}", path.display()))
            .next("`holdfast config show --default` prints every key")
    };
    let bytes = match named_file::read(&path, FILE_LEN_MAX) {
        Ok(bytes) => bytes,
        // Any other error may hide a file whose settings would silently not hold.
        Err(error) if named.is_none() && is_absent(&error) => {
            return Ok((None, FileConfig::default()));
        }
        Err(error) => return Err(refuse("cannot be read").source(error)),
    };
    let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8"))?;
    let values = toml::from_str(&text).map_err(|error| refuse("is not valid").source(error))?;
    Ok((Some(path), values))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that an environment variable names. A relative one means nothing here: the XDG base
/// directory specification asks to ignore it.
fn directory_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
}

/// `variable` when set, else `below_home` in the home directory, if there is one.
fn user_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    directory_variable(variable)
        .or_else(|| directory_variable("HOME").map(|home| home.join(below_home)))
}

fn default_file() -> Option<PathBuf> {
    if is_root() {
        Some("/etc/holdfast/holdfast.toml".into())
    } else {
        user_dir("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("holdfast/holdfast.toml"))
    }
}

fn default_data_dir() -> Option<PathBuf> {
    if is_root() {
        Some("/var/lib/holdfast".into())
    } else {
        user_dir("XDG_STATE_HOME", ".local/state").map(|dir| dir.join("holdfast"))
    }
}

fn data_dir(global: &Global, values: &FileConfig) -> Result<Setting<Option<PathBuf>>, Refusal> {
    let (named, origin) = if let Some(dir) = &global.data_dir {
        let origin = flag_or_environment("HOLDFAST_DATA_DIR", dir.as_os_str());
        (dir, origin)
    } else if let Some(dir) = &values.data_dir {
        (dir, Origin::File)
    } else {
        return Ok(Setting {
            value: default_data_dir(),
            origin: Origin::Default,
        });
    };
    let value = std::path::absolute(named).map_err(|error| {
        Refusal::new(format!("data directory `{}`", named.display()))
            .source(error)
            .next("name a directory with --data-dir DIR")
    })?;
    Ok(Setting {
        value: Some(value),
        origin,
    })
}

/// The parser hands over flags and environment alike; a flag equal to the variable counts as the latter.
fn flag_or_environment(name: &str, value: &std::ffi::OsStr) -> Origin {
    if env::var_os(name).is_some_and(|set| set == value) {
        Origin::Environment
    } else {
        Origin::Flag
    }
}

fn output(
    global: &Global,
    values: &FileConfig,
    file: Option<&Path>,
) -> Result<Setting<Output>, Refusal> {
    if let Some(value) = global.output {
        let name = value.to_possible_value().expect("no format is skipped");
        let origin = flag_or_environment("HOLDFAST_OUTPUT", name.get_name().as_ref());
        return Ok(Setting { value, origin });
    }
    let Some(text) = &values.output else {
        return Ok(Setting {
            value: Output::Table,
            origin: Origin::Default,
        });
    };
    let value = Output::from_str(text, false)
        .map_err(|_| bad_value("output", text, file, "table, json or csv"))?;
    Ok(Setting {
        value,
        origin: Origin::File,
    })
}

/// A variable that is not text is a bad value, and not an absent one.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn truth(name: &str, of_file: Option<bool>, default: bool) -> Result<Setting<bool>, Refusal> {
    let (value, origin) = match (variable(name), of_file) {
        (Some(text), _) => {
            let value = text
                .parse()
                .map_err(|_| bad_value(name, &text, None, "true or false"))?;
            (value, Origin::Environment)
        }
        (None, Some(value)) => (value, Origin::File),
        (None, None) => (default, Origin::Default),
    };
    Ok(Setting { value, origin })
}

/// OTLP over HTTP has a port of its own, and SDKs send there unless told otherwise.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4318);

fn listen(values: &FileConfig, file: Option<&Path>) -> Result<Setting<SocketAddr>, Refusal> {
    let name = "HOLDFAST_EVENTS_LISTEN";
    let (key, text, file, origin) = match (variable(name), &values.events.listen) {
        (Some(text), _) => (name, text, None, Origin::Environment),
        (None, Some(text)) => ("events.listen", text.clone(), file, Origin::File),
        (None, None) => {
            return Ok(Setting {
                value: LISTEN_DEFAULT,
                origin: Origin::Default,
            });
        }
    };
    let value = text
        .parse()
        .map_err(|_| bad_value(key, &text, file, "an address and a port, as 127.0.0.1:4318"))?;
    Ok(Setting { value, origin })
}

fn rules_dir(values: &FileConfig) -> Setting<Option<PathBuf>> {
    if let Some(dir) = env::var_os("HOLDFAST_SCAN_RULES_DIR") {
        return Setting {
            value: Some(dir.into()),
            origin: Origin::Environment,
        };
    }
    Setting {
        value: values.scan.rules_dir.clone(),
        origin: if values.scan.rules_dir.is_some() {
            Origin::File
        } else {
            Origin::Default
        },
    }
}

fn bad_value(key: &str, text: &str, file: Option<&Path>, wanted: &str) -> Refusal {
    let place = file
        .map(|file| format!(" in {}", file.display()))
        .unwrap_or_default();
    Refusal::new(format!("`{text}` is no value for {key}{place}")).next(format!("write {wanted}"))
}
