//! Alerts by syslog: RFC 5424, over UDP (RFC 5426), TCP with octet counting (RFC 6587) or TLS
//! (RFC 5425), one message for each event. No receiver of syslog says that it has a message: what was
//! written to the connection counts as taken.

use std::{
    io::{Read as _, Write},
    net::{TcpStream, ToSocketAddrs as _, UdpSocket},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use scan::alert::{Event, Notice, Severity, Tried, What};
use world::Timestamp;

use super::{Transport, words};

pub(super) mod cef;

/// Longest datagram: what RFC 5426 asks every receiver to take.
const DATAGRAM_LEN_MAX: usize = 2048;
/// How long an end of the other side is waited for.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// What of it is read meanwhile; syslog has nothing to say.
const UNREAD_LEN_MAX: u64 = 64 << 10;
/// The enterprise number that RFC 5612 keeps for documentation: Holdfast has none of its own.
const STRUCTURE: &str = "holdfast@32473";

#[derive(Clone)]
pub(super) enum Carrier {
    Udp,
    Tcp,
    Tls(Arc<ClientConfig>, ServerName<'static>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Structured,
    Cef,
}

pub(super) struct Syslog {
    pub(super) address: String,
    pub(super) carrier: Carrier,
    pub(super) payload: Payload,
    pub(super) facility: u8,
    /// Who sends, as every message says.
    pub(super) node: String,
    pub(super) timeout: Duration,
}

impl Transport for Syslog {
    fn send(&self, notice: &Notice) -> Tried {
        let messages = self.messages(notice);
        match self.write(&messages) {
            Ok(()) => Tried::Taken,
            Err(error) => Tried::Again {
                reason: format!("syslog {}: {error}", self.address),
                after: None,
            },
        }
    }
}

impl Syslog {
    fn write(&self, messages: &[String]) -> std::io::Result<()> {
        let mut addresses = self.address.to_socket_addrs()?;
        let address = addresses
            .next()
            .ok_or_else(|| std::io::Error::other("the name has no address"))?;
        match &self.carrier {
            Carrier::Udp => {
                let any = if address.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                for message in messages {
                    socket.send(cut(message, DATAGRAM_LEN_MAX).as_bytes())?;
                }
                Ok(())
            }
            Carrier::Tcp => {
                let mut stream = self.connect(address)?;
                counted(&mut stream, messages)?;
                close(&mut stream)
            }
            Carrier::Tls(config, name) => {
                let stream = self.connect(address)?;
                let session = ClientConnection::new(Arc::clone(config), name.clone())
                    .map_err(std::io::Error::other)?;
                let mut stream = StreamOwned::new(session, stream);
                counted(&mut stream, messages)?;
                stream.conn.send_close_notify();
                stream.flush()?;
                close(&mut stream.sock)
            }
        }
    }

    fn connect(&self, address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, self.timeout)?;
        stream.set_write_timeout(Some(self.timeout))?;
        stream.set_read_timeout(Some(self.timeout))?;
        Ok(stream)
    }

    /// One for each event, and one for those that are only counted.
    fn messages(&self, notice: &Notice) -> Vec<String> {
        let mut messages: Vec<String> = notice
            .events
            .iter()
            .map(|event| self.message(notice, event))
            .collect();
        let more = notice.total.saturating_sub(notice.events.len() as u64);
        if more > 0 {
            let head = self.head(severity_of(notice.severity()), notice.at, "more");
            let text = match self.payload {
                Payload::Structured => {
                    let structure =
                        structure(&[("notice", &notice.id), ("more", &more.to_string())]);
                    format!("{structure} {more} more alerts")
                }
                Payload::Cef => format!("- {}", cef::more(notice, more)),
            };
            messages.push(format!("{head} {text}"));
        }
        messages
    }

    fn message(&self, notice: &Notice, event: &Event) -> String {
        // What is over is a notice, whatever it was.
        let severity = if event.event == What::Resolved {
            5
        } else {
            severity_of(event.severity)
        };
        let head = self.head(severity, notice.at, event.kind.name());
        match self.payload {
            Payload::Structured => {
                let text = |number: u64| number.to_string();
                let (alert, count) = (text(event.alert), text(event.count));
                let mut of = vec![
                    ("notice", notice.id.as_str()),
                    ("alert", &alert),
                    ("event", event.event.name()),
                    ("kind", event.kind.name()),
                    ("severity", event.severity.name()),
                    ("state", event.state.name()),
                    ("count", &count),
                ];
                if let Some(host) = &notice.host {
                    of.extend([("host", host.name.as_str()), ("site", &host.site)]);
                }
                if let Some(subject) = &event.subject {
                    of.push(("subject", subject));
                }
                format!("{head} {} {}", structure(&of), plain(&words::line(event)))
            }
            Payload::Cef => format!("{head} - {}", cef::event(notice, event)),
        }
    }

    /// Up to and with MSGID.
    fn head(&self, severity: u8, at: u64, id: &str) -> String {
        let priority = u16::from(self.facility) * 8 + u16::from(severity);
        let at = crate::moment::rfc3339(Timestamp::from_nanos(at));
        let node = token(&self.node, 255);
        let process = std::process::id();
        format!(
            "<{priority}>1 {at} {node} holdfast {process} {}",
            token(id, 32)
        )
    }
}

const fn severity_of(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Info => 6,
    }
}

/// Ends our side, and waits for the other to end. A socket that is closed while something of the other
/// end is unread, a ticket of TLS for example, is reset, and takes away what was not read there yet.
fn close(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(CLOSE_WAIT))?;
    let mut unread = Vec::new();
    // One that stays open for longer has had the time to read.
    stream.take(UNREAD_LEN_MAX).read_to_end(&mut unread).ok();
    Ok(())
}

/// Each after its length: a message may hold anything, line feeds too (RFC 6587, 3.4.1).
fn counted(stream: &mut impl Write, messages: &[String]) -> std::io::Result<()> {
    for message in messages {
        stream.write_all(format!("{} {message}", message.len()).as_bytes())?;
    }
    stream.flush()
}

fn structure(of: &[(&str, &str)]) -> String {
    let mut text = format!("[{STRUCTURE}");
    for (name, value) in of {
        text.push(' ');
        text.push_str(name);
        text.push_str("=\"");
        for char in plain(value).chars() {
            if matches!(char, '"' | '\\' | ']') {
                text.push('\\');
            }
            text.push(char);
        }
        text.push('"');
    }
    text.push(']');
    text
}

/// A field of the head: printable ASCII without spaces, or `-`.
fn token(text: &str, len_max: usize) -> String {
    let fit: String = text
        .chars()
        .map(|char| if char.is_ascii_graphic() { char } else { '_' })
        .take(len_max)
        .collect();
    if fit.is_empty() { "-".to_owned() } else { fit }
}

/// No message spans lines, whatever a receiver splits by.
fn plain(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

fn cut(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}

#[cfg(test)]
mod tests;
