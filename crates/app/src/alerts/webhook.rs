//! A notice by HTTP: one POST of JSON, signed.
//!
//! `Holdfast-Signature: t=SECONDS,v1=HEX` is HMAC-SHA256 by the receiver's secret over `SECONDS.BODY`,
//! with the time of the attempt, so that a copy that was caught can be told from a fresh one.

use std::{fmt::Write as _, io::Read as _, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use scan::alert::{Notice, Tried};
use sha2::Sha256;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use world::{Clock, RealClock, Timestamp};
use zeroize::Zeroizing;

use super::{Transport, document};
use crate::exit::Refusal;

/// Bytes of an answer that are read: what it says is of no use, only that it ends.
const ANSWER_LEN_MAX: u64 = 16 << 10;

pub(super) struct Webhook {
    pub(super) agent: ureq::Agent,
    pub(super) url: Zeroizing<String>,
    pub(super) key: Option<Zeroizing<String>>,
    /// Names and values.
    pub(super) headers: Vec<(String, Zeroizing<String>)>,
}

/// No redirects: one would carry secrets elsewhere. No proxy from the environment: alerts go where
/// configuration says.
pub(super) fn agent(timeout: Duration, ca: Option<&[u8]>) -> Result<ureq::Agent, Refusal> {
    let mut tls = TlsConfig::builder();
    if let Some(pem) = ca {
        let certificate = Certificate::from_pem(pem)
            .map_err(|error| Refusal::new("the ca_file holds no certificate").source(error))?;
        tls = tls.root_certs(RootCerts::new_with_certs(&[certificate]));
    }
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .proxy(None)
        .tls_config(tls.build())
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.new_agent())
}

impl Transport for Webhook {
    fn send(&self, notice: &Notice) -> Tried {
        let body = document::notice(notice).to_string();
        let mut request = self
            .agent
            .post(self.url.as_str())
            .header("content-type", "application/json")
            .header("idempotency-key", &notice.id);
        if let Some(key) = &self.key {
            let seconds = RealClock::new().now().nanos() / 1_000_000_000;
            request = request.header("holdfast-signature", signature(key, seconds, &body));
        }
        for (name, value) in &self.headers {
            request = request.header(name, value.as_str());
        }
        match request.send(body.as_bytes()) {
            Ok(response) => outcome(response),
            Err(error) => again(explained(&error), None),
        }
    }
}

fn outcome(mut response: ureq::http::Response<ureq::Body>) -> Tried {
    let status = response.status().as_u16();
    let after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| retry_after(text, RealClock::new().now()));
    let mut answer = Vec::new();
    let reader = response.body_mut().as_reader();
    let read = reader.take(ANSWER_LEN_MAX).read_to_end(&mut answer);
    match status {
        200..=299 if read.is_ok() => Tried::Taken,
        200..=299 => again("the answer broke off".to_owned(), None),
        // Those that speak of the place, its load or our rights and not of this notice: somebody
        // mends that, and the notice is worth sending then.
        0..=399 | 401 | 403..=405 | 407 | 408 | 410 | 421 | 425 | 429 | 500.. => {
            again(format!("HTTP {status}"), after)
        }
        _ => Tried::Refused {
            reason: format!("HTTP {status}"),
        },
    }
}

fn again(reason: String, after: Option<Duration>) -> Tried {
    Tried::Again { reason, after }
}

/// Without the address, which may hold a secret.
pub(crate) fn explained(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer within the timeout".to_owned(),
        ureq::Error::HostNotFound => "the name of the host is not known".to_owned(),
        ureq::Error::Io(error) => format!("connection: {error}"),
        ureq::Error::Tls(error) => format!("TLS: {error}"),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::Protocol(_) => "the answer is not HTTP".to_owned(),
        _ => "the request could not be made".to_owned(),
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let at = u64::try_from(at.as_nanosecond()).ok()?;
    Some(Duration::from_nanos(at.saturating_sub(now.nanos())))
}

fn signature(key: &str, seconds: u64, body: &str) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{seconds}.{body}").as_bytes());
    let mut text = format!("t={seconds},v1=");
    for byte in mac.finalize().into_bytes() {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by `printf %s '1700000000.{}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn the_signature_is_what_other_tools_compute() {
        let expected = "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        let found = signature("key", 1_700_000_000, "{}");
        assert_eq!(found, format!("t=1700000000,v1={expected}"));
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date() {
        let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Tue, 14 Nov 2023 22:14:20 GMT", Some(60)),
            ("Tue, 14 Nov 2023 22:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }
}
