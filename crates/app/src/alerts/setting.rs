//! `[[alerts.receiver]]` of the configuration. Checked when the file is read; secrets are read when a
//! receiver begins, so that commands that send nothing need none of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lettre::{
    SmtpTransport,
    message::Mailbox,
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use scan::alert::{Kind, Receiver, Severity};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    Transport,
    mail::Mail,
    node,
    syslog::{Carrier, Payload, Syslog},
    webhook::{self, Webhook},
};
use crate::{exit::Refusal, moment, named_file};

/// Receivers of one configuration: each has a thread.
const RECEIVERS_MAX: usize = 32;
/// Addresses of one mail.
const ADDRESSES_MAX: usize = 50;
/// Longest file with a secret or with certificates.
const FILE_LEN_MAX: u64 = 256 << 10;
/// How long an attempt may take, unless the receiver has a `timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest `timeout`: a stop does not wait for it, but the queue behind it does.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
/// The facility of syslog that is for local use, and taken the least.
const FACILITY: u8 = 16;

/// What `holdfast config show --default` prints of it.
pub(crate) const EXAMPLE: &str = r#"
# Who is told of alerts; docs/ALERTS.md. As many as are wanted, each with a table of its own.
# Every receiver takes:
#   name (required), kind (required: webhook, email or syslog),
#   minimum_severity (info, medium, high or critical; default medium),
#   kinds, hosts, groups (lists; without one all are meant), resolved (default true: told what is over),
#   timeout (default "10s"), ca_file (certificates that are trusted in place of the public ones)
# Secrets are env:VARIABLE or file:PATH, never the secret itself.

# [[alerts.receiver]]
# name = "chat"
# kind = "webhook"
# url = "https://hooks.example.org/holdfast"  # or env:VARIABLE, file:PATH where it is a secret
# secret = "file:/etc/holdfast/webhook.key"   # signs each request; none: unsigned
# headers = { authorization = "env:HOOK_TOKEN" }
# allow_plain_http = false                    # http:// to other machines

# [[alerts.receiver]]
# name = "duty"
# kind = "email"
# server = "mail.example.org:587"
# security = "starttls"                       # starttls, tls, or none (this machine only)
# user = "holdfast"
# password = "file:/etc/holdfast/mail.password"
# from = "Holdfast <holdfast@example.org>"
# to = ["duty@example.org"]
# minimum_severity = "high"

# [[alerts.receiver]]
# name = "siem"
# kind = "syslog"
# address = "siem.example.org:6514"
# transport = "tls"                           # udp, tcp or tls; tls needs ca_file
# ca_file = "/etc/holdfast/siem-ca.pem"
# format = "cef"                              # structured (RFC 5424) or cef
# facility = 16
"#;

/// One table as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileReceiver {
    name: String,
    kind: String,
    minimum_severity: Option<String>,
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    hosts: BTreeSet<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
    resolved: Option<bool>,
    timeout: Option<String>,
    ca_file: Option<PathBuf>,
    url: Option<String>,
    secret: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    allow_plain_http: Option<bool>,
    server: Option<String>,
    security: Option<String>,
    user: Option<String>,
    password: Option<String>,
    from: Option<String>,
    #[serde(default)]
    to: Vec<String>,
    address: Option<String>,
    transport: Option<String>,
    format: Option<String>,
    facility: Option<u8>,
}

/// A receiver that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    pub(crate) filter: Receiver,
    pub(crate) timeout: Duration,
    ca_file: Option<PathBuf>,
    pub(crate) way: Way,
}

#[derive(Clone, Debug)]
pub(crate) enum Way {
    Webhook {
        url: Source,
        secret: Option<Source>,
        headers: Vec<(String, Source)>,
        is_plain_allowed: bool,
    },
    Email {
        host: String,
        port: u16,
        security: Security,
        login: Option<(String, Source)>,
        from: Mailbox,
        to: Vec<Mailbox>,
    },
    Syslog {
        host: String,
        port: u16,
        by: By,
        payload: Payload,
        facility: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Starttls,
    Tls,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
    Tls,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Environment(String),
    File(PathBuf),
    /// Not a secret.
    Here(String),
}

/// Checks every receiver of a configuration.
pub(crate) fn configured(
    receivers: &[FileReceiver],
    file: Option<&Path>,
) -> Result<Vec<Configured>, Refusal> {
    let place = file.map_or_else(String::new, |file| format!(" in {}", file.display()));
    if receivers.len() > RECEIVERS_MAX {
        return Err(Refusal::new(format!(
            "{} tables [[alerts.receiver]]{place}, more than {RECEIVERS_MAX}",
            receivers.len()
        ))
        .next("let a program fan out what one webhook is told"));
    }
    let mut names = BTreeSet::new();
    let mut configured = Vec::with_capacity(receivers.len());
    for receiver in receivers {
        let read = Reading {
            receiver,
            place: &place,
        };
        let found = read.configured()?;
        if !names.insert(found.filter.name.clone()) {
            return Err(read.refuse("its name is another's too", "give it a name of its own"));
        }
        configured.push(found);
    }
    Ok(configured)
}

struct Reading<'a> {
    receiver: &'a FileReceiver,
    place: &'a str,
}

impl Reading<'_> {
    fn refuse(&self, what: &str, next: &str) -> Refusal {
        let name = self.receiver.name.escape_debug();
        Refusal::new(format!("alert receiver `{name}`{}: {what}", self.place)).next(next)
    }

    fn configured(&self) -> Result<Configured, Refusal> {
        let receiver = self.receiver;
        let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        if receiver.name.is_empty()
            || receiver.name.len() > 64
            || !receiver.name.chars().all(is_name)
        {
            return Err(self.refuse(
                "its name is not usable",
                "use 1 to 64 letters, digits, - _ .",
            ));
        }
        let (way, its_own) = match receiver.kind.as_str() {
            "webhook" => (self.webhook()?, &WEBHOOK[..]),
            "email" => (self.email()?, &EMAIL[..]),
            "syslog" => (self.syslog()?, &SYSLOG[..]),
            _ => return Err(self.refuse("kind is not known", "write webhook, email or syslog")),
        };
        for (key, is_set) in self.set() {
            if is_set && !its_own.contains(&key) {
                let what = format!("{key} is no key of kind {}", receiver.kind);
                return Err(self.refuse(
                    &what,
                    "`holdfast config show --default` prints what each takes",
                ));
            }
        }
        let timeout = match &receiver.timeout {
            None => TIMEOUT,
            Some(text) => moment::parse_span(text)
                .filter(|span| *span >= Duration::from_millis(100) && *span <= TIMEOUT_MAX)
                .ok_or_else(|| {
                    self.refuse("timeout is none", "write a span, as 10s, 2m at most")
                })?,
        };
        let minimum = match &receiver.minimum_severity {
            None => Severity::Medium,
            Some(text) => named(text, &Severity::ALL, |it| it.name()).ok_or_else(|| {
                self.refuse(
                    "minimum_severity is none",
                    "write info, medium, high or critical",
                )
            })?,
        };
        let kind = |text: &String| {
            named(text, &Kind::ALL, |it| it.name()).ok_or_else(|| {
                let what = format!("`{}` is no kind of alert", text.escape_debug());
                self.refuse(&what, "docs/ALERTS.md lists the kinds")
            })
        };
        Ok(Configured {
            filter: Receiver {
                name: receiver.name.clone(),
                minimum,
                kinds: receiver.kinds.iter().map(kind).collect::<Result<_, _>>()?,
                hosts: receiver.hosts.clone(),
                groups: receiver.groups.clone(),
                resolved: receiver.resolved.unwrap_or(true),
            },
            timeout,
            ca_file: receiver.ca_file.clone(),
            way,
        })
    }

    /// Which keys that not every kind has are there.
    fn set(&self) -> [(&'static str, bool); 14] {
        let it = self.receiver;
        [
            ("url", it.url.is_some()),
            ("secret", it.secret.is_some()),
            ("headers", !it.headers.is_empty()),
            ("allow_plain_http", it.allow_plain_http.is_some()),
            ("server", it.server.is_some()),
            ("security", it.security.is_some()),
            ("user", it.user.is_some()),
            ("password", it.password.is_some()),
            ("from", it.from.is_some()),
            ("to", !it.to.is_empty()),
            ("address", it.address.is_some()),
            ("transport", it.transport.is_some()),
            ("format", it.format.is_some()),
            ("facility", it.facility.is_some()),
        ]
    }

    fn need<'v>(&self, key: &str, value: Option<&'v String>) -> Result<&'v str, Refusal> {
        value.map(String::as_str).ok_or_else(|| {
            self.refuse(
                &format!("{key} is missing"),
                "`holdfast config show --default` prints an example",
            )
        })
    }

    /// What was given is not repeated where it is no source: it may be the secret itself.
    fn secret(&self, key: &str, text: &str) -> Result<Source, Refusal> {
        source(text).ok_or_else(|| {
            let what = format!("{key}: a secret is not written where others can read it");
            self.refuse(
                &what,
                &format!("write {key} = \"env:VARIABLE\" or \"file:PATH\""),
            )
        })
    }

    fn webhook(&self) -> Result<Way, Refusal> {
        let url = self.need("url", self.receiver.url.as_ref())?;
        let is_plain_allowed = self.receiver.allow_plain_http.unwrap_or(false);
        let url = match source(url) {
            Some(source) => source,
            None => {
                must_be_url(url, is_plain_allowed)
                    .map_err(|(what, next)| self.refuse(what, next))?;
                Source::Here(url.to_owned())
            }
        };
        let secret = self.receiver.secret.as_ref();
        let headers = self.receiver.headers.iter().map(|(name, value)| {
            if ureq::http::HeaderName::try_from(name).is_err() {
                return Err(self.refuse("a name in headers is none of HTTP", "correct it"));
            }
            Ok((name.clone(), self.secret("headers", value)?))
        });
        Ok(Way::Webhook {
            url,
            secret: secret.map(|text| self.secret("secret", text)).transpose()?,
            headers: headers.collect::<Result<_, _>>()?,
            is_plain_allowed,
        })
    }

    fn email(&self) -> Result<Way, Refusal> {
        let receiver = self.receiver;
        let security = match receiver.security.as_deref() {
            None | Some("starttls") => Security::Starttls,
            Some("tls") => Security::Tls,
            Some("none") => Security::None,
            Some(_) => return Err(self.refuse("security is none", "write starttls, tls or none")),
        };
        let (host, port) = self.endpoint("server", receiver.server.as_ref())?;
        if security == Security::None && !is_loopback(&host) {
            return Err(self.refuse(
                "security = \"none\" sends mails, and the password, in the clear to another machine",
                "write starttls or tls, or send by a server on this machine",
            ));
        }
        let mailbox = |key: &str, text: &str| {
            text.parse::<Mailbox>().map_err(|_| {
                self.refuse(
                    &format!("{key}: `{}` is no address", text.escape_debug()),
                    "write name@example.org or Name <name@example.org>",
                )
            })
        };
        let login = match (&receiver.user, &receiver.password) {
            (None, None) => None,
            (Some(user), Some(password)) => {
                Some((user.clone(), self.secret("password", password)?))
            }
            _ => {
                return Err(
                    self.refuse("user and password belong together", "give both, or neither")
                );
            }
        };
        if receiver.to.is_empty() || receiver.to.len() > ADDRESSES_MAX {
            return Err(self.refuse(
                &format!("to has not 1 to {ADDRESSES_MAX} addresses"),
                "name a list of the mail server",
            ));
        }
        let to = receiver.to.iter().map(|text| mailbox("to", text));
        Ok(Way::Email {
            host,
            port,
            security,
            login,
            from: mailbox("from", self.need("from", receiver.from.as_ref())?)?,
            to: to.collect::<Result<_, _>>()?,
        })
    }

    fn syslog(&self) -> Result<Way, Refusal> {
        let receiver = self.receiver;
        let by = match receiver.transport.as_deref() {
            Some("udp") => By::Udp,
            None | Some("tcp") => By::Tcp,
            Some("tls") => By::Tls,
            Some(_) => return Err(self.refuse("transport is none", "write udp, tcp or tls")),
        };
        if by == By::Tls && receiver.ca_file.is_none() {
            return Err(self.refuse(
                "transport tls needs ca_file",
                "name the certificate that signed the receiver's",
            ));
        }
        let payload = match receiver.format.as_deref() {
            None | Some("structured") => Payload::Structured,
            Some("cef") => Payload::Cef,
            Some(_) => return Err(self.refuse("format is none", "write structured or cef")),
        };
        let facility = receiver.facility.unwrap_or(FACILITY);
        if facility > 23 {
            return Err(self.refuse("facility is none", "write 0 to 23"));
        }
        let (host, port) = self.endpoint("address", receiver.address.as_ref())?;
        Ok(Way::Syslog {
            host,
            port,
            by,
            payload,
            facility,
        })
    }

    fn endpoint(&self, key: &str, text: Option<&String>) -> Result<(String, u16), Refusal> {
        let text = self.need(key, text)?;
        let split = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some((
                host.to_owned(),
                port.parse::<u16>().ok().filter(|port| *port > 0)?,
            ))
        });
        split
            .filter(|(host, _)| {
                !host.is_empty() && host.chars().all(|char| char.is_ascii_graphic())
            })
            .ok_or_else(|| {
                self.refuse(
                    &format!("{key} is no host and port"),
                    "write it as mail.example.org:587",
                )
            })
    }
}

const WEBHOOK: [&str; 4] = ["url", "secret", "headers", "allow_plain_http"];
const EMAIL: [&str; 6] = ["server", "security", "user", "password", "from", "to"];
const SYSLOG: [&str; 4] = ["address", "transport", "format", "facility"];

fn named<T: Copy>(text: &str, all: &[T], name: impl Fn(&T) -> &'static str) -> Option<T> {
    all.iter().find(|it| name(it) == text).copied()
}

fn source(text: &str) -> Option<Source> {
    match text.split_once(':') {
        Some(("env", variable)) if !variable.is_empty() => {
            Some(Source::Environment(variable.to_owned()))
        }
        Some(("file", path)) if !path.is_empty() => Some(Source::File(path.into())),
        _ => None,
    }
}

fn must_be_url(url: &str, is_plain_allowed: bool) -> Result<(), (&'static str, &'static str)> {
    let next = "write it as https://hooks.example.org/path";
    let Ok(uri) = url.parse::<ureq::http::Uri>() else {
        return Err(("url is none", next));
    };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else {
        return Err(("url names no host", next));
    };
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return Err((
            "url holds a user",
            "send it in headers, as env:VARIABLE or file:PATH",
        ));
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_plain_allowed || is_loopback(host) => Ok(()),
        Some("http") => Err((
            "url is http:// to another machine, where everybody on the way reads it",
            "write https://, or allow_plain_http = true where the way is safe",
        )),
        _ => Err(("url is neither https nor http", next)),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl Configured {
    /// Ready to send: secrets and certificates are read.
    pub(crate) fn transport(&self) -> Result<Box<dyn Transport>, Refusal> {
        let ca = self
            .ca_file
            .as_deref()
            .map(|path| self.file("ca_file", path))
            .transpose()?;
        match &self.way {
            Way::Webhook {
                url,
                secret,
                headers,
                is_plain_allowed,
            } => {
                let url = self.read("url", url)?;
                must_be_url(&url, *is_plain_allowed)
                    .map_err(|(what, next)| self.refuse(what, next))?;
                let read = |(name, source): &(String, Source)| {
                    Ok((name.clone(), self.read("headers", source)?))
                };
                let headers: Vec<(String, Zeroizing<String>)> =
                    headers.iter().map(read).collect::<Result<_, Refusal>>()?;
                let is_value = |value: &str| ureq::http::HeaderValue::try_from(value).is_ok();
                if !headers.iter().all(|(_, value)| is_value(value)) {
                    return Err(
                        self.refuse("a value of headers cannot be sent", "write it on one line")
                    );
                }
                let key = secret
                    .as_ref()
                    .map(|source| self.read("secret", source))
                    .transpose()?;
                let agent = webhook::agent(self.timeout, ca.as_deref())?;
                Ok(Box::new(Webhook {
                    agent,
                    url,
                    key,
                    headers,
                }))
            }
            Way::Email {
                host,
                port,
                security,
                login,
                from,
                to,
            } => {
                let smtp = self.smtp(host, *port, *security, login.as_ref(), ca.as_deref())?;
                Ok(Box::new(Mail {
                    smtp,
                    from: from.clone(),
                    to: to.clone(),
                }))
            }
            Way::Syslog {
                host,
                port,
                by,
                payload,
                facility,
            } => Ok(Box::new(Syslog {
                address: with_port(host, *port),
                carrier: self.carrier(host, *by, ca.as_deref())?,
                payload: *payload,
                facility: *facility,
                node: node(),
                timeout: self.timeout,
            })),
        }
    }

    fn smtp(
        &self,
        host: &str,
        port: u16,
        security: Security,
        login: Option<&(String, Source)>,
        ca: Option<&[u8]>,
    ) -> Result<SmtpTransport, Refusal> {
        let tls = || {
            let mut parameters = TlsParameters::builder(host.to_owned());
            if let Some(pem) = ca {
                let certificate = Certificate::from_pem(pem).map_err(|error| {
                    self.refuse("ca_file holds no certificate", "name a PEM file")
                        .source(error)
                })?;
                parameters = parameters.add_root_certificate(certificate);
            }
            parameters.build().map_err(|error| {
                self.refuse("TLS cannot be set up", "look at server and ca_file")
                    .source(error)
            })
        };
        let tls = match security {
            Security::Starttls => Tls::Required(tls()?),
            Security::Tls => Tls::Wrapper(tls()?),
            Security::None => Tls::None,
        };
        let mut smtp = SmtpTransport::builder_dangerous(host)
            .port(port)
            .tls(tls)
            .timeout(Some(self.timeout));
        if let Some((user, password)) = login {
            let password = self.read("password", password)?;
            smtp = smtp.credentials(Credentials::new(user.clone(), (*password).clone()));
        }
        Ok(smtp.build())
    }

    fn carrier(&self, host: &str, by: By, ca: Option<&[u8]>) -> Result<Carrier, Refusal> {
        let pem = match (by, ca) {
            (By::Udp, _) => return Ok(Carrier::Udp),
            (By::Tcp, _) => return Ok(Carrier::Tcp),
            (By::Tls, pem) => pem.unwrap_or_default(),
        };
        let refuse = |what: &str| {
            self.refuse(
                what,
                "name a PEM file with the certificate that signed the receiver's",
            )
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| refuse("ca_file holds something else"))?;
            roots
                .add(certificate)
                .map_err(|error| refuse("ca_file").source(error))?;
        }
        if roots.is_empty() {
            return Err(refuse("ca_file holds no certificate"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("TLS cannot be set up").source(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            self.refuse(
                "address has no name that a certificate could hold",
                "correct it",
            )
            .source(error)
        })?;
        Ok(Carrier::Tls(Arc::new(config), name))
    }

    fn refuse(&self, what: &str, next: &str) -> Refusal {
        Refusal::new(format!("alert receiver `{}`: {what}", self.filter.name)).next(next)
    }

    fn read(&self, key: &str, source: &Source) -> Result<Zeroizing<String>, Refusal> {
        match source {
            Source::Here(text) => Ok(Zeroizing::new(text.clone())),
            Source::Environment(variable) => {
                std::env::var(variable).map(Zeroizing::new).map_err(|_| {
                    self.refuse(
                        &format!("{key}: variable {variable} is not set, or is no text"),
                        "set it for the process, or name a file with file:PATH",
                    )
                })
            }
            Source::File(path) => {
                let bytes = Zeroizing::new(self.file(key, path)?);
                let text = std::str::from_utf8(&bytes).map_err(|_| {
                    self.refuse(
                        &format!("{key}: {} is no text", path.display()),
                        "write the value on one line",
                    )
                })?;
                Ok(Zeroizing::new(
                    text.trim_end_matches(['\r', '\n']).to_owned(),
                ))
            }
        }
    }

    fn file(&self, key: &str, path: &Path) -> Result<Vec<u8>, Refusal> {
        named_file::read(path, FILE_LEN_MAX).map_err(|error| {
            self.refuse(
                &format!("{key}: {}", path.display()),
                "name a file that may be read",
            )
            .source(error)
        })
    }

    /// Its kind and where it is, without what may be a secret.
    pub(crate) fn place(&self) -> (&'static str, String) {
        match &self.way {
            Way::Webhook {
                url: Source::Here(url),
                ..
            } => {
                let uri = url.parse::<ureq::http::Uri>().ok();
                let of = uri.and_then(|uri| {
                    Some(format!("{}://{}/…", uri.scheme_str()?, uri.authority()?))
                });
                ("webhook", of.unwrap_or_default())
            }
            Way::Webhook {
                url: Source::Environment(variable),
                ..
            } => ("webhook", format!("env:{variable}")),
            Way::Webhook {
                url: Source::File(path),
                ..
            } => ("webhook", format!("file:{}", path.display())),
            Way::Email { to, .. } => {
                let to: Vec<String> = to.iter().map(|it| it.email.to_string()).collect();
                ("email", to.join(" "))
            }
            Way::Syslog {
                host,
                port,
                by,
                payload,
                ..
            } => {
                let by = match by {
                    By::Udp => "udp",
                    By::Tcp => "tcp",
                    By::Tls => "tls",
                };
                let payload = match payload {
                    Payload::Structured => "",
                    Payload::Cef => " cef",
                };
                (
                    "syslog",
                    format!("{by} {}{payload}", with_port(host, *port)),
                )
            }
        }
    }
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
