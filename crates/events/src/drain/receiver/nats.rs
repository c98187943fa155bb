//! A JetStream stream of a NATS server: each event one message, taken when its `PubAck` came.
//!
//! The client protocol is lines of text, of which six kinds are needed here; the libraries for it
//! bring an async runtime, which this room does without. No TLS: a server that requires it is refused
//! as misconfigured. A message goes to the subject of its class below that of the receiver. Its
//! `Nats-Msg-Id` is the event's id, so that what is sent again within the stream's window for
//! duplicates is kept once.
//!
//! Always holds: an acknowledgement counts for the one message that asked for it. Each message of a
//! connection has a number of its own, so what comes late or twice is no other's.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;
use world::Clock;

use super::{Accepted, Header, Refused, SendError, quoted};
use crate::{Error, Event, Kind, lines};

const PORT: u16 = 4222;
/// Where there is none in the URL. A stream of these events takes `holdfast.events.>`.
const SUBJECT: &str = "holdfast.events";
/// Longest subject of a receiver, in bytes. Arbitrary; with the inbox it stays far below the 4 KiB
/// that the server reads as a line.
const SUBJECT_LEN_MAX: usize = 255;
/// How long a connection is kept for another send. The server asks an idle client every two minutes
/// whether it is there, and nobody here would answer.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Messages written before their acknowledgements are read: the server answers while it is written
/// to, and its answers must fit into the buffers of a connection.
const WINDOW: usize = 64;
/// Longest line of the protocol read. `INFO` of a large cluster names its servers in some KiB.
const LINE_LEN_MAX: u64 = 64 << 10;
/// Longest message read. Acknowledgements have a few hundred bytes.
const MESSAGE_LEN_MAX: usize = 64 << 10;

/// JetStream's code for a message that is longer than the stream takes.
const MESSAGE_TOO_LARGE: u32 = 10_054;
/// JetStream is not enabled for the account, or at all.
const NOT_ENABLED: [u32; 2] = [10_039, 10_076];

/// Where to: `nats://HOST[:PORT][/SUBJECT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    host: String,
    port: u16,
    subject: String,
}

impl Place {
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let parsed = || {
            let rest = url.strip_prefix("nats://")?;
            let (authority, subject) = rest.split_once('/').unwrap_or((rest, SUBJECT));
            let subject = if subject.is_empty() { SUBJECT } else { subject };
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
                _ => (authority, PORT),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            // `$` begins the server's own subjects.
            let is_subject = subject.len() <= SUBJECT_LEN_MAX
                && !subject.starts_with('$')
                && subject.split('.').all(|token| {
                    !token.is_empty()
                        && token
                            .bytes()
                            .all(|b| b.is_ascii_graphic() && !b"*>".contains(&b))
                });
            // A password would be shown wherever the receiver is named.
            let is_host =
                !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
            (is_subject && is_host).then(|| Self {
                host: host.to_owned(),
                port,
                subject: subject.to_owned(),
            })
        };
        parsed().ok_or_else(|| {
            // What may be a password is not repeated.
            let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
            let message = format!(
                "`{shown}` is no NATS receiver; write nats://HOST:PORT or nats://HOST:PORT/SUBJECT, \
                 where the subject has no wildcard, and credentials as headers"
            );
            Error::new(Kind::Invalid, message)
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "nats://[{}]:{}/{}", self.host, self.port, self.subject);
        }
        write!(f, "nats://{}:{}/{}", self.host, self.port, self.subject)
    }
}

pub(super) struct Receiver {
    place: Place,
    /// What `CONNECT` says, credentials included.
    connect: serde_json::Value,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    /// Kept between sends; gone after any error, for then what is on it is not known.
    connection: Option<Connection>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Connection {
    stream: BufReader<TcpStream>,
    inbox: String,
    max_payload: usize,
    /// Messages that were written to it, which is the number of the next.
    sent: u64,
    used_at: Duration,
}

#[derive(Deserialize)]
struct Info {
    server_id: String,
    client_id: u64,
    max_payload: usize,
    #[serde(default)]
    headers: bool,
    #[serde(default)]
    tls_required: bool,
}

#[derive(Default, Deserialize)]
struct PubAck {
    stream: Option<String>,
    seq: Option<u64>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    code: u32,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// What the server says next.
enum Said {
    Pong,
    Error(String),
    /// The number of the message that it answers, and the answer.
    Answer(u64, PubAck),
    /// Nobody takes the message of this number.
    NoResponders(u64),
    Other,
}

impl Receiver {
    /// `headers` are the credentials: `token`, or `user` and `password`.
    pub(super) fn new(
        place: Place,
        headers: &[Header],
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let mut connect = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true,
            "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "protocol": 1, "name": "holdfast",
        });
        for header in headers {
            let key = match header.name.as_str() {
                "token" => "auth_token",
                "user" => "user",
                "password" => "pass",
                other => {
                    let message =
                        format!("NATS has no header `{other}`; give token, or user and password");
                    return Err(Error::new(Kind::Invalid, message));
                }
            };
            connect[key] = header.value.as_str().into();
        }
        Ok(Self {
            place,
            connect,
            timeout,
            clock,
            connection: None,
        })
    }

    fn connected(&self) -> Result<Connection, SendError> {
        let fail = |error: io::Error| SendError::retry(format_args!("{}: {error}", self.place));
        let misconfigured = |what: &str| SendError::Misconfigured {
            why: format!("{} {what}", self.place),
        };
        let addresses = (self.place.host.as_str(), self.place.port);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let mut stream = None;
        for address in addresses.to_socket_addrs().map_err(fail)? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = stream.ok_or(last).map_err(fail)?;
        stream.set_nodelay(true).map_err(fail)?;
        stream.set_read_timeout(Some(self.timeout)).map_err(fail)?;
        stream.set_write_timeout(Some(self.timeout)).map_err(fail)?;
        let mut stream = BufReader::new(stream);
        let line = read_line(&mut stream).map_err(fail)?;
        let Some(info) = line.strip_prefix("INFO ") else {
            return Err(misconfigured("does not speak NATS"));
        };
        let info: Info = serde_json::from_str(info).map_err(|error| fail(error.into()))?;
        if info.tls_required {
            return Err(misconfigured(
                "requires TLS, which this drain does not speak",
            ));
        }
        if !info.headers {
            return Err(misconfigured(
                "takes no headers, and with them no ids of messages",
            ));
        }
        // Of this connection alone: the server gives each client a number.
        let inbox = format!("_INBOX.{}.{}", info.server_id, info.client_id);
        let hello = format!("CONNECT {}\r\nSUB {inbox}.* 1\r\nPING\r\n", self.connect);
        let mut connection = Connection {
            stream,
            inbox,
            max_payload: info.max_payload,
            sent: 0,
            used_at: self.clock.monotonic(),
        };
        connection.write(hello.as_bytes()).map_err(fail)?;
        let ends = self.clock.monotonic() + self.timeout;
        loop {
            if self.clock.monotonic() > ends {
                return Err(fail(io::ErrorKind::TimedOut.into()));
            }
            match connection.read().map_err(fail)? {
                Said::Pong => return Ok(connection),
                Said::Error(why) if is_about_us(&why) => {
                    return Err(misconfigured(&format!("refuses us: {why}")));
                }
                // Too many connections, for one.
                Said::Error(why) => return Err(fail(io::Error::other(why))),
                _ => {}
            }
        }
    }

    fn publish(
        &self,
        connection: &mut Connection,
        batch: &[Event],
        refused: &mut Vec<Refused>,
    ) -> Result<(), SendError> {
        let fail = |error: io::Error| SendError::retry(format_args!("{}: {error}", self.place));
        let ends = self.clock.monotonic() + self.timeout;
        let mut first = 0;
        for window in batch.chunks(WINDOW) {
            let base = connection.sent;
            let mut awaited = vec![false; window.len()];
            let mut bytes = Vec::new();
            for (at, event) in window.iter().enumerate() {
                let message = message(event);
                if message.len() > connection.max_payload {
                    refused.push(Refused {
                        index: first + at,
                        why: format!(
                            "message of {} bytes; {} takes {}",
                            message.len(),
                            self.place,
                            connection.max_payload
                        ),
                    });
                    continue;
                }
                awaited[at] = true;
                self.push(&mut bytes, connection, base + at as u64, event, &message);
            }
            connection.sent += window.len() as u64;
            connection.write(&bytes).map_err(fail)?;
            while awaited.contains(&true) {
                if self.clock.monotonic() > ends {
                    return Err(fail(io::ErrorKind::TimedOut.into()));
                }
                if let Some((at, why)) = self.answer(connection, base, &mut awaited)? {
                    refused.push(Refused {
                        index: first + at,
                        why,
                    });
                }
            }
            first += window.len();
        }
        Ok(())
    }

    fn push(
        &self,
        bytes: &mut Vec<u8>,
        connection: &Connection,
        number: u64,
        event: &Event,
        message: &Message,
    ) {
        write!(
            bytes,
            "HPUB {}.{} {}.{number} {} {}\r\n",
            self.place.subject,
            event.event.class,
            connection.inbox,
            message.head_len,
            message.len()
        )
        .and_then(|()| bytes.write_all(&message.bytes))
        .and_then(|()| bytes.write_all(b"\r\n"))
        .expect("writing to memory cannot fail");
    }

    /// Takes in what the server says next; a message that it refused for good, and why.
    fn answer(
        &self,
        connection: &mut Connection,
        base: u64,
        awaited: &mut [bool],
    ) -> Result<Option<(usize, String)>, SendError> {
        let place = &self.place;
        let said = connection
            .read()
            .map_err(|error| SendError::retry(format_args!("{place}: {error}")))?;
        let (number, ack) = match said {
            Said::Answer(number, ack) => (number, Some(ack)),
            Said::NoResponders(number) => (number, None),
            Said::Error(why) if is_about_us(&why) => {
                return Err(SendError::Misconfigured {
                    why: format!("{place} refuses us: {why}"),
                });
            }
            Said::Error(why) => return Err(SendError::retry(format_args!("{place}: {why}"))),
            Said::Pong | Said::Other => return Ok(None),
        };
        let at = number.checked_sub(base);
        let at = at.and_then(|at| usize::try_from(at).ok());
        let Some(at) = at.filter(|at| awaited.get(*at) == Some(&true)) else {
            return Ok(None);
        };
        let Some(ack) = ack else {
            let subject = &place.subject;
            return Err(SendError::Misconfigured {
                why: format!("{place}: no stream takes {subject}.>; add one that does"),
            });
        };
        awaited[at] = false;
        match ack {
            PubAck {
                error: Some(error), ..
            } => {
                let why = format!(
                    "{place} answered {} ({}): {}",
                    error.code,
                    error.err_code,
                    quoted(error.description.as_bytes())
                );
                if error.err_code == MESSAGE_TOO_LARGE {
                    return Ok(Some((at, why)));
                }
                if NOT_ENABLED.contains(&error.err_code) {
                    return Err(SendError::Misconfigured { why });
                }
                // A full stream, one without a leader, a changed limit: all of them can pass.
                Err(SendError::Retry { after: None, why })
            }
            PubAck {
                stream: Some(_),
                seq: Some(_),
                ..
            } => Ok(None),
            // Someone else subscribes to the subject and answers, and no stream keeps it.
            PubAck { .. } => Err(SendError::Misconfigured {
                why: format!("{place}: whoever answers is no stream"),
            }),
        }
    }
}

impl super::Receiver for Receiver {
    fn send(&mut self, batch: &[Event]) -> Result<Accepted, SendError> {
        let now = self.clock.monotonic();
        let kept = self.connection.take();
        let mut connection = match kept.filter(|kept| now < kept.used_at + IDLE_MAX) {
            Some(connection) => connection,
            None => self.connected()?,
        };
        let mut accepted = Accepted::default();
        self.publish(&mut connection, batch, &mut accepted.refused)?;
        connection.used_at = self.clock.monotonic();
        self.connection = Some(connection);
        Ok(accepted)
    }
}

/// Whether an error of the server is about who we are and what we may do, and not about a message.
fn is_about_us(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    ["permissions", "authorization", "authentication"]
        .iter()
        .any(|word| error.contains(word))
}

struct Message {
    bytes: Vec<u8>,
    head_len: usize,
}

impl Message {
    fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn message(event: &Event) -> Message {
    let mut text = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", event.id);
    let head_len = text.len();
    lines::push(&mut text, event);
    text.truncate(text.trim_end().len());
    Message {
        bytes: text.into_bytes(),
        head_len,
    }
}

impl Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn read(&mut self) -> io::Result<Said> {
        let line = read_line(&mut self.stream)?;
        let mut words = line.split_ascii_whitespace();
        match words.next().unwrap_or_default() {
            "PING" => {
                self.write(b"PONG\r\n")?;
                Ok(Said::Other)
            }
            "PONG" => Ok(Said::Pong),
            "-ERR" => Ok(Said::Error(quoted(line.as_bytes()))),
            kind @ ("MSG" | "HMSG") => {
                let words: Vec<&str> = words.collect();
                let broken =
                    || io::Error::new(io::ErrorKind::InvalidData, "a message that is none");
                let length = |text: &str| text.parse::<usize>().map_err(|_| broken());
                let (&subject, &len) = words.first().zip(words.last()).ok_or_else(broken)?;
                let len = length(len)?;
                if len > MESSAGE_LEN_MAX {
                    return Err(broken());
                }
                let mut bytes = vec![0; len + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(len);
                let head_len = match kind {
                    "MSG" => 0,
                    _ => length(words.iter().rev().nth(1).ok_or_else(broken)?)?,
                };
                let (head, body) = bytes.split_at_checked(head_len).ok_or_else(broken)?;
                let number = subject.rsplit('.').next().map(str::parse);
                let number = number.and_then(Result::ok).ok_or_else(broken)?;
                if head.starts_with(b"NATS/1.0 503") {
                    return Ok(Said::NoResponders(number));
                }
                // What is no acknowledgement has neither a stream nor an error.
                let ack = serde_json::from_slice(body).unwrap_or_default();
                Ok(Said::Answer(number, ack))
            }
            _ => Ok(Said::Other),
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let text = String::from_utf8(line);
    let text = text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not text"))?;
    Ok(text.trim_end_matches('\r').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_host_and_a_subject_that_is_one() {
        let check = |url: &str, wanted: Option<(&str, u16, &str)>| {
            let place = Place::parse(url).ok();
            let found = place
                .as_ref()
                .map(|place| (place.host.as_str(), place.port, place.subject.as_str()));
            assert_eq!(found, wanted, "{url}");
            if let Some(place) = place {
                assert_eq!(Place::parse(&place.to_string()).unwrap(), place, "{url}");
            }
        };
        check("nats://here/events", Some(("here", 4222, "events")));
        check("nats://here:5/a.b", Some(("here", 5, "a.b")));
        check("nats://[::1]:5/a", Some(("::1", 5, "a")));
        check("nats://[::1]/a", Some(("::1", 4222, "a")));
        check("nats://here:5", Some(("here", 5, SUBJECT)));
        check("nats://here/", Some(("here", 4222, SUBJECT)));
        check("nats://", None);
        check("nats:///a", None);
        check("nats://here there/a", None);
        check("nats://here/$JS.API", None);
        check(&format!("nats://here/{}", "a".repeat(256)), None);
        check("nats://here/a.>", None);
        check("nats://here/a..b", None);
        check("nats://here/a b", None);
        check("nats://user:secret@here/a", None);
        check("nats://here:x/a", None);
        check("http://here/a", None);
    }
}
