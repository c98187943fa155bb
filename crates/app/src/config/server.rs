//! Where the server listens, and behind which certificate.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Origin, Setting, bad_value, truth, variable};
use crate::exit::Refusal;

/// Nobody's port by registration; near those that people try.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8420);

/// The settings of the server, each with where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) enabled: Setting<bool>,
    pub(crate) listen: Setting<SocketAddr>,
    pub(crate) tls: Setting<Tls>,
    /// Certificate and key, PEM; both or neither.
    pub(crate) tls_cert: Setting<Option<PathBuf>>,
    pub(crate) tls_key: Setting<Option<PathBuf>>,
    /// Where people and programs find it; told to those who ask a node that stands by.
    pub(crate) url: Setting<Option<String>>,
}

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Where another machine can reach it.
    Auto,
    On,
    Off,
}

impl Tls {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl Server {
    pub(crate) fn is_encrypted(&self) -> bool {
        match self.tls.value {
            Tls::Auto => !self.listen.value.ip().is_loopback() || self.tls_cert.value.is_some(),
            Tls::On => true,
            Tls::Off => false,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileServer {
    enabled: Option<bool>,
    listen: Option<String>,
    tls: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    url: Option<String>,
}

pub(super) fn server(values: &FileServer, file: Option<&Path>) -> Result<Server, Refusal> {
    let server = Server {
        enabled: truth("HOLDFAST_SERVER_ENABLED", values.enabled, true)?,
        listen: read(
            ("server.listen", "HOLDFAST_SERVER_LISTEN"),
            values.listen.as_deref(),
            file,
            LISTEN_DEFAULT,
            |text| text.parse().ok(),
            "an address and a port, as 127.0.0.1:8420",
        )?,
        tls: read(
            ("server.tls", "HOLDFAST_SERVER_TLS"),
            values.tls.as_deref(),
            file,
            Tls::Auto,
            |text| {
                let all = [Tls::Auto, Tls::On, Tls::Off];
                all.into_iter().find(|tls| tls.name() == text)
            },
            "auto, on or off",
        )?,
        tls_cert: path("HOLDFAST_SERVER_TLS_CERT", values.tls_cert.as_ref()),
        tls_key: path("HOLDFAST_SERVER_TLS_KEY", values.tls_key.as_ref()),
        url: read(
            ("server.url", "HOLDFAST_SERVER_URL"),
            values.url.as_deref(),
            file,
            None,
            url,
            "https://HOST:PORT and nothing behind it",
        )?,
    };
    must_be_safe(&server)?;
    Ok(server)
}

fn url(text: &str) -> Option<Option<String>> {
    let uri: axum::http::Uri = text.parse().ok()?;
    let is_one = matches!(uri.scheme_str(), Some("https" | "http"))
        && uri.path() == "/"
        && uri.query().is_none()
        && uri.authority().is_some_and(|it| !it.as_str().contains('@'));
    is_one.then(|| Some(text.trim_end_matches('/').to_owned()))
}

/// Off this machine only with TLS: a token that crosses a network in the open is everybody's (SVC-3).
fn must_be_safe(server: &Server) -> Result<(), Refusal> {
    let address = server.listen.value;
    if server.enabled.value && !address.ip().is_loopback() && !server.is_encrypted() {
        return Err(Refusal::new(format!(
            "listening on {address} without TLS would send tokens and findings over the network in the open"
        ))
        .next("leave server.tls at auto, or listen on 127.0.0.1 behind a proxy of this machine that has TLS"));
    }
    if server.tls_cert.value.is_some() != server.tls_key.value.is_some() {
        return Err(Refusal::new(
            "server.tls_cert and server.tls_key belong together, and one is missing",
        )
        .next("name both, or neither: then a certificate is made at the first start"));
    }
    Ok(())
}

fn read<T>(
    (key, environment): (&'static str, &'static str),
    in_file: Option<&str>,
    file: Option<&Path>,
    default: T,
    parse: impl Fn(&str) -> Option<T>,
    wanted: &str,
) -> Result<Setting<T>, Refusal> {
    let (name, text, file, origin) = match (variable(environment), in_file) {
        (Some(text), _) => (environment, text, None, Origin::Environment),
        (None, Some(text)) => (key, text.to_owned(), file, Origin::File),
        (None, None) => {
            return Ok(Setting {
                value: default,
                origin: Origin::Default,
            });
        }
    };
    let value = parse(text.trim()).ok_or_else(|| bad_value(name, &text, file, wanted))?;
    Ok(Setting { value, origin })
}

fn path(environment: &str, in_file: Option<&PathBuf>) -> Setting<Option<PathBuf>> {
    let (value, origin) = match (std::env::var_os(environment), in_file) {
        (Some(path), _) => (Some(path.into()), Origin::Environment),
        (None, Some(path)) => (Some(path.clone()), Origin::File),
        (None, None) => (None, Origin::Default),
    };
    Setting { value, origin }
}
