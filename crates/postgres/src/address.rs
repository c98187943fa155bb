//! Where the database is, and by whom it is opened: a URL and, beside it, a password.
//!
//! What is refused is never repeated: a URL that is not understood may have its password anywhere.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use store::{Error, Kind};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use zeroize::Zeroizing;

use crate::fault::{Cause, Fault};

/// One attempt to connect, name resolution not counted.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A machine that fell silent is given up after about a minute, on both sides: its locks are free then.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// What a session is set to, whatever the server's own settings are.
///
/// A lock is waited for as long as a long commit takes, a statement as long as a slow disk may make it;
/// a transaction that its client forgot ends by itself. Plans by index, always: they are made when the
/// tables are small, and kept while these grow. Compiling plans takes longer than running them.
const SESSION: &str = "-c lock_timeout=5s -c statement_timeout=30s \
    -c idle_in_transaction_session_timeout=60s \
    -c default_transaction_isolation=read\\ committed \
    -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 \
    -c enable_seqscan=off -c jit=off -c client_min_messages=warning";

/// Whom one speaks to through TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// No TLS.
    Open,
    /// Whoever answers.
    Anybody,
    /// A certificate for the host's name, from an authority in this file, or one of the system's.
    Named(Option<PathBuf>),
}

/// A database. Shown, it has no password.
#[derive(Clone)]
pub struct Address {
    pub(crate) config: Config,
    pub(crate) trust: Trust,
}

impl Address {
    /// `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=…&sslrootcert=FILE]`, where HOST may be
    /// left out and given as `?host=DIRECTORY` of a Unix socket. `password` is used when the URL has
    /// none. Off this machine TLS is used unless `sslmode=disable` is said; `require` and `prefer` do
    /// not look at who answers, `verify-full` does.
    pub fn parse(url: &str, password: Option<&[u8]>) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| base.strip_prefix(scheme))
            .ok_or_else(misunderstood)?;
        // A second @, one behind a /, or a # belongs to a password that was not written as it has to be.
        let is_behind_a_slash = rest
            .split_once('/')
            .is_some_and(|(_, path)| path.contains('@'));
        if is_behind_a_slash || rest.matches('@').count() > 1 || url.contains('#') {
            return Err(misunderstood());
        }
        let mut mode = None;
        let mut root = None;
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => root = Some(PathBuf::from(value)),
                Some(("host" | "port" | "user" | "dbname", _)) => kept.push(pair),
                _ => return Err(misunderstood()),
            }
        }
        // Wiped: it may hold the password.
        let plain = Zeroizing::new(format!("{base}?{}", kept.join("&")));
        let mut config = Config::from_str(&plain).map_err(|_| misunderstood())?;
        if let (None, Some(password)) = (config.get_password(), password) {
            config.password(password);
        }
        check_names(&config)?;
        let trust = trust(&config, mode, root)?;
        configure(&mut config, &trust);
        Ok(Self { config, trust })
    }

    /// Whether `url` has a password in it, which has no place among the arguments of a program.
    pub fn has_password(url: &str) -> bool {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let secret = |user: &str| user.contains(':');
        rest.rsplit_once('@').is_some_and(|(user, _)| secret(user))
            || authority
                .rsplit_once('@')
                .is_some_and(|(user, _)| secret(user))
            || rest.contains("password=")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        let mut ports = self.config.get_ports().iter();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                Host::Unix(path) => write!(f, "{comma}{}", path.display())?,
            }
            if let Some(port) = ports.next() {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.to_string()).finish()
    }
}

fn misunderstood() -> Error {
    Error::new(
        Kind::Invalid,
        "the URL of the database is not understood, its form is \
         postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full, with % before the two hexadecimal \
         digits of a character that is special in a URL",
    )
}

/// Names that could be a part of a password, and databases that a person did not name.
fn check_names(config: &Config) -> Result<(), Error> {
    let is_plain = |host: &Host| match host {
        Host::Tcp(name) => {
            let is_of_names = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
            !name.is_empty() && name.chars().all(is_of_names)
        }
        Host::Unix(_) => true,
    };
    let has_hosts = !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_plain);
    let has_database = config.get_dbname().is_some_and(|name| !name.is_empty());
    let has_user = config.get_user().is_some_and(|name| !name.is_empty());
    match has_hosts && has_database && has_user {
        true => Ok(()),
        false => Err(misunderstood()),
    }
}

fn trust(config: &Config, mode: Option<&str>, root: Option<PathBuf>) -> Result<Trust, Error> {
    let is_near = config.get_hosts().iter().all(is_loopback);
    let is_socket = |host: &Host| matches!(host, Host::Unix(_));
    if config.get_hosts().iter().all(is_socket) {
        return Ok(Trust::Open);
    }
    match (mode, root) {
        (Some("disable"), _) => Ok(Trust::Open),
        (Some("verify-full"), root) => Ok(Trust::Named(root)),
        // As with libpq: whoever names an authority wants it to be asked.
        (Some("require" | "prefer") | None, Some(root)) => Ok(Trust::Named(Some(root))),
        (None | Some("prefer"), None) if is_near => Ok(Trust::Open),
        (Some("require" | "prefer") | None, None) => Ok(Trust::Anybody),
        (Some(_), _) => Err(Error::caused(
            Kind::Invalid,
            "the sslmode of the database's URL is not understood",
            Fault::new(
                Cause::Denied,
                "it is disable, prefer, require or verify-full",
            ),
        )),
    }
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
    }
}

fn configure(config: &mut Config, trust: &Trust) {
    config
        .application_name("holdfast")
        .options(SESSION)
        .connect_timeout(CONNECT_MAX)
        .tcp_user_timeout(SILENCE_MAX)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .ssl_mode(match trust {
            Trust::Open => SslMode::Disable,
            // Never falls back to a way without.
            Trust::Anybody | Trust::Named(_) => SslMode::Require,
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "correct-horse-Recognisable";

    #[test]
    fn what_is_shown_of_an_address_has_no_password() {
        for url in [
            format!("postgres://u:{SECRET}@db.example:5433/site?sslmode=verify-full"),
            format!("postgresql://u:{SECRET}@[::1]/site"),
        ] {
            let address = Address::parse(&url, None).unwrap();
            assert_eq!(address.config.get_password(), Some(SECRET.as_bytes()));
            assert!(!format!("{address} {address:?} {address:#?}").contains(SECRET));
            assert!(Address::has_password(&url), "{url}");
        }
        let address = Address::parse("postgres://u@h/d", Some(SECRET.as_bytes())).unwrap();
        assert_eq!(address.config.get_password(), Some(SECRET.as_bytes()));
        assert!(!format!("{address:?}").contains(SECRET));
        assert!(!Address::has_password("postgres://u@h:5432/d"));
    }

    #[test]
    fn a_url_that_is_refused_is_not_repeated() {
        for url in [
            format!("mysql://u:{SECRET}@h/d"),
            format!("host=h user=u password={SECRET}"),
            format!("postgres://u:p@{SECRET}@h/d"),
            format!("postgres://u:p/{SECRET}@h/d"),
            format!("postgres://u:p#{SECRET}@h/d"),
            format!("postgres://u:p?{SECRET}@h/d"),
            format!("postgres://u@h/d?password={SECRET}"),
            format!("postgres://u@h/d?sslmode={SECRET}"),
            format!("postgres://u@h:{SECRET}/d"),
            format!("postgres://u@{SECRET} x/d"),
            "postgres://u@h".to_owned(),
            "postgres:///d".to_owned(),
            String::new(),
        ] {
            let error = Address::parse(&url, None).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{url}");
            assert!(
                !format!("{error} {error:?}").contains(SECRET),
                "{url}: {error}"
            );
        }
    }

    #[test]
    fn off_this_machine_there_is_tls_unless_it_is_refused_in_so_many_words() {
        fn check(rest: &str, trust: &Trust) {
            let address = Address::parse(&format!("postgres://u@{rest}"), None).unwrap();
            assert_eq!(address.trust, *trust, "{rest}");
        }
        check("db.example/d", &Trust::Anybody);
        check("db.example/d?sslmode=prefer", &Trust::Anybody);
        check("db.example/d?sslmode=require", &Trust::Anybody);
        check("db.example/d?sslmode=verify-full", &Trust::Named(None));
        let root = Trust::Named(Some("/ca.pem".into()));
        check("db.example/d?sslrootcert=/ca.pem", &root);
        check(
            "db.example/d?sslmode=verify-full&sslrootcert=/ca.pem",
            &root,
        );
        check("db.example/d?sslmode=disable", &Trust::Open);
        check("localhost/d", &Trust::Open);
        check("127.0.0.1/d?sslmode=prefer", &Trust::Open);
        check("127.0.0.1/d?sslmode=require", &Trust::Anybody);
        check("localhost,db.example/d", &Trust::Anybody);
        check("/d?host=/run/postgresql", &Trust::Open);
    }
}
