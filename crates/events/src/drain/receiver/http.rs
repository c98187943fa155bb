//! One POST: bounded in time and size, no redirects, no proxy; and what a status means by default.

use std::{fmt, io::Write as _, sync::Arc, time::Duration};

use flate2::{Compression, write::GzEncoder};
use world::Clock;

use super::{Header, SendError, quoted};
use crate::{Error, Kind};

/// Longest answer read, in bytes. A receiver that acknowledges each event of a full batch with its
/// id and position stays below a quarter of it.
const ANSWER_LEN_MAX: u64 = 1 << 20;

/// Where to and how.
pub(super) struct Post {
    agent: ureq::Agent,
    url: String,
    headers: Vec<Header>,
    clock: Arc<dyn Clock>,
}

/// What came back, whatever the status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) content_type: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Post {
    pub(super) fn new(
        url: &str,
        headers: &[Header],
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        for header in headers {
            let is_sendable = ureq::http::HeaderName::try_from(&header.name).is_ok()
                && ureq::http::HeaderValue::try_from(&header.value).is_ok();
            if !is_sendable {
                let message = format!("header `{}` cannot be sent in a request", header.name);
                return Err(Error::new(Kind::Invalid, message));
            }
        }
        // A redirect would turn the POST into a GET or carry credentials elsewhere; a proxy is not
        // taken from the environment, because events go where configuration says.
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            url: url.to_owned(),
            headers: headers.to_vec(),
            clock,
        })
    }

    /// Sends `body` compressed. An error means that no answer came: whether the receiver has the
    /// body is not known.
    pub(super) fn send(&self, content_type: &str, body: &[u8]) -> Result<Answer, SendError> {
        self.send_folded(content_type, Some("gzip"), &gzip(body))
    }

    /// Sends `body` as it is, folded as `encoding` says.
    pub(super) fn send_folded(
        &self,
        content_type: &str,
        encoding: Option<&str>,
        body: &[u8],
    ) -> Result<Answer, SendError> {
        let mut request = self.agent.post(&self.url);
        request = request.header("content-type", content_type);
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        for header in &self.headers {
            request = request.header(&header.name, &header.value);
        }
        let mut response = request
            .send(body)
            .map_err(|error| SendError::retry(format_args!("{}: {error}", self.url)))?;
        let retry_after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| retry_after(text, &*self.clock));
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_LEN_MAX)
            .read_to_vec()
            .map_err(|error| SendError::retry(format_args!("{}: {error}", self.url)))?;
        Ok(Answer {
            status,
            retry_after,
            content_type,
            body,
        })
    }

    /// What an answer without success means, by the rules of OTLP/HTTP: these four statuses are
    /// worth another try, no other is. Statuses that speak of us and not of the batch lose nothing:
    /// refusing a backlog because of a wrong password would.
    pub(super) fn failure(&self, answer: &Answer, said: &str) -> SendError {
        let why = format!("{} answered {}{}", self.url, answer.status, colon(said));
        match answer.status {
            429 | 502..=504 => SendError::Retry {
                after: answer.retry_after,
                why,
            },
            413 => SendError::Split { why },
            // Informational and redirecting answers, too: no receiver lives there.
            0..=399 | 401 | 403..=405 | 407 | 415 | 421 => SendError::Misconfigured { why },
            _ => SendError::Refused { why },
        }
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("url", &self.url)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as a sentence.
    pub(super) fn said(&self) -> String {
        quoted(&self.body)
    }
}

fn colon(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("writing to memory cannot fail")
}

/// Seconds, or the date form of HTTP, which is always in GMT. Anything else is as if it was not said.
fn retry_after(text: &str, clock: &dyn Clock) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = http_date(text)?;
    Some(date.saturating_sub(Duration::from_nanos(clock.now().nanos())))
}

/// Days from the first of March of the year 0 to 1970, in the calendar of today.
const DAYS_BEFORE_1970: u64 = 719_468;

/// `Sun, 06 Nov 1994 08:49:37 GMT` as time since 1970.
fn http_date(text: &str) -> Option<Duration> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = text.split(' ').collect();
    let &[_, day, month, year, time, "GMT"] = &words[..] else {
        return None;
    };
    let at = MONTHS
        .find(month)
        .filter(|at| month.len() == 3 && at % 3 == 0)?;
    let month = at as u64 / 3 + 1;
    let (day, year) = (day.parse::<u64>().ok()?, year.parse::<u64>().ok()?);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let mut parts = time.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years are counted from March, so that the leap day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(DAYS_BEFORE_1970)?;
    Some(Duration::from_secs(
        days * 86_400 + hour * 3_600 + minute * 60 + second,
    ))
}

/// The URL with `path`, when it has none.
pub(super) fn with_path(url: &str, path: &str) -> Result<String, Error> {
    let refuse = |what: &str| {
        let message = format!("`{url}` {what}; write http://HOST:PORT or https://HOST:PORT");
        Err(Error::new(Kind::Invalid, message))
    };
    let Ok(uri) = url.parse::<ureq::http::Uri>() else {
        return refuse("is no URL");
    };
    let scheme = uri.scheme_str().unwrap_or_default();
    let Some(authority) = uri
        .authority()
        .filter(|_| matches!(scheme, "http" | "https"))
    else {
        return refuse("is no URL of HTTP");
    };
    if authority.as_str().contains('@') {
        // It would be shown wherever the receiver is named.
        return refuse("holds a password, which belongs into a header from a file");
    }
    if matches!(uri.path(), "" | "/") && uri.query().is_none() {
        return Ok(format!("{scheme}://{authority}{path}"));
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use world::{Timestamp, sim};

    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms_and_ignored_in_others() {
        let now = Timestamp::from_nanos(784_111_777 * 1_000_000_000);
        let clock = sim::Clock::new(now);
        let check = |text: &str, seconds: Option<u64>| {
            let read = retry_after(text, &clock);
            assert_eq!(read, seconds.map(Duration::from_secs), "{text}");
        };
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Sun, 06 Nov 1994 08:50:07 GMT", Some(30));
        check(
            "Thu, 29 Feb 1996 00:00:00 GMT",
            Some(825_552_000 - 784_111_777),
        );
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("-1", None);
        check("soon", None);
        check("Sun, 06 Nov 1994 08:49:37 CET", None);
        check("Sun, 06 anF 1994 08:49:37 GMT", None);
        check("Sun, 99 Nov 1994 08:49:37 GMT", None);
    }

    #[test]
    fn a_url_without_a_path_gets_the_one_of_its_receiver() {
        let check = |url: &str, wanted: Option<&str>| {
            assert_eq!(with_path(url, "/v1/logs").ok().as_deref(), wanted, "{url}");
        };
        check("http://host:4318", Some("http://host:4318/v1/logs"));
        check("http://host:4318/", Some("http://host:4318/v1/logs"));
        check("https://host/own/path", Some("https://host/own/path"));
        check("http://[::1]:1", Some("http://[::1]:1/v1/logs"));
        check("ftp://host", None);
        check("host:4318", None);
        check("http://", None);
        check("http://user:secret@host", None);
        check("", None);
    }
}
