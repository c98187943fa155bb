//! Sockets that wait for a peer, from `/proc/net/{tcp,tcp6,udp,udp6}`.
//!
//! TCP: state LISTEN. UDP: every socket that is bound and not connected, since any peer may send
//! to it. The kernel prints addresses as words in its own byte order; they are read as
//! little-endian, which is every platform of the rules. Process names are not collected: they need
//! root and every process's descriptors.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use serde_json::{Value, json};

use super::{Collector, Context, FactPattern, Shape};
use crate::{
    facts::{Reason, Unknown},
    target::Found,
};

/// One table, read piece by piece: 150 bytes a socket make this 600,000 connections.
const TABLE_BYTES_MAX: usize = 96 << 20;

/// Sockets that wait, all tables together: a resolver may have tens of thousands.
const SOCKETS_MAX: usize = 65_536;

/// The longest line of a table is below 200 bytes.
const LINE_BYTES_MAX: usize = 4 << 10;

const LISTEN: &str = "0A";
/// What the kernel shows for a UDP socket without a peer.
const UNCONNECTED: &str = "07";

pub(super) const COLLECTOR: Collector = Collector {
    name: "sockets",
    about: "TCP sockets that listen and UDP sockets that any peer may send to",
    reads: &[
        "/proc/net/tcp",
        "/proc/net/tcp6",
        "/proc/net/udp",
        "/proc/net/udp6",
    ],
    patterns: &[
        FactPattern::closed("sockets", Shape::Map, "sockets of this network namespace"),
        FactPattern::closed(
            "sockets.listening",
            Shape::List,
            "sockets that wait for a peer",
        ),
        FactPattern::closed(
            "sockets.listening[].protocol",
            Shape::Text,
            "tcp, tcp6, udp or udp6",
        ),
        FactPattern::closed(
            "sockets.listening[].address",
            Shape::Text,
            "local address: 0.0.0.0, ::1",
        ),
        FactPattern::closed("sockets.listening[].port", Shape::Int, "local port"),
        FactPattern::closed(
            "sockets.listening[].loopback",
            Shape::Bool,
            "reachable from this machine only",
        ),
        FactPattern::closed(
            "sockets.listening[].uid",
            Shape::Int,
            "user id that opened it",
        ),
    ],
    collect,
    ..Collector::DEFAULT
};

/// Ordered as it stands in the fact.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    protocol: &'static str,
    port: u16,
    address: String,
    loopback: bool,
    uid: u32,
}

fn collect(context: &Context<'_>) -> Result<Value, Unknown> {
    // A set: one line a worker of the same port would make the fact depend on their number.
    let mut sockets = BTreeSet::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let path = format!("/proc/net/{protocol}");
        let mut table = Table::new(protocol, &mut sockets);
        match context.stream(&path, TABLE_BYTES_MAX, &mut |piece| table.take(piece)) {
            Found::Present(()) => table.finish(&path)?,
            // Without IPv6 the kernel has no such file; without /proc it has none of them.
            Found::Absent if protocol.ends_with('6') => {}
            Found::Absent => {
                return Err(Unknown::new(
                    Reason::Unreadable,
                    format!("{path}: not there"),
                ));
            }
            Found::Unknown(unknown) => return Err(unknown),
        }
    }
    let listening: Vec<Value> = sockets
        .iter()
        .map(|socket| {
            json!({
                "protocol": socket.protocol, "address": socket.address, "port": socket.port,
                "loopback": socket.loopback, "uid": socket.uid,
            })
        })
        .collect();
    Ok(json!({ "listening": listening }))
}

/// One table as it comes in. Holds one line.
struct Table<'a> {
    protocol: &'static str,
    sockets: &'a mut BTreeSet<Socket>,
    line: Vec<u8>,
    lines: usize,
    malformed: Option<usize>,
}

impl<'a> Table<'a> {
    fn new(protocol: &'static str, sockets: &'a mut BTreeSet<Socket>) -> Self {
        Self {
            protocol,
            sockets,
            line: Vec::new(),
            lines: 0,
            malformed: None,
        }
    }

    fn take(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            if self.line.len() + part.len() > LINE_BYTES_MAX {
                self.malformed.get_or_insert(self.lines + 1);
                self.line.clear();
                continue;
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        self.lines += 1;
        let line = std::mem::take(&mut self.line);
        let heading = self.lines == 1;
        match std::str::from_utf8(&line)
            .ok()
            .and_then(|line| parse_line(self.protocol, line))
        {
            Some(Some(socket)) => {
                // One more than the limit is enough to know that there are too many.
                if self.sockets.len() <= SOCKETS_MAX {
                    self.sockets.insert(socket);
                }
            }
            Some(None) => {}
            None if heading => {}
            None => {
                self.malformed.get_or_insert(self.lines);
            }
        }
    }

    /// A table whose last line has no end was cut.
    fn finish(self, path: &str) -> Result<(), Unknown> {
        let malformed = if self.lines == 0 || !self.line.is_empty() {
            Some(self.lines + 1)
        } else {
            self.malformed
        };
        if self.sockets.len() > SOCKETS_MAX {
            let detail = format!("{path}: over {SOCKETS_MAX} sockets");
            return Err(Unknown::new(Reason::Truncated, detail));
        }
        match malformed {
            Some(line) => Err(Unknown::new(
                Reason::Malformed,
                format!("{path}: line {line}: no socket"),
            )),
            None => Ok(()),
        }
    }
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid ..`. `Some(None)` for a socket that
/// waits for nobody, `None` for a line that is no socket.
fn parse_line(protocol: &'static str, line: &str) -> Option<Option<Socket>> {
    let fields: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
    let [_, local, _, state, _, _, _, uid] = fields[..] else {
        return None;
    };
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let (address, loopback) = parse_address(address)?;
    let uid = uid.parse().ok()?;
    let waits = if protocol.starts_with("tcp") {
        LISTEN
    } else {
        UNCONNECTED
    };
    Some((state == waits).then_some(Socket {
        protocol,
        port,
        address,
        loopback,
        uid,
    }))
}

fn parse_address(hex: &str) -> Option<(String, bool)> {
    if !hex.is_ascii() {
        return None;
    }
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_le_bytes())
    };
    match hex.len() {
        8 => {
            let address = Ipv4Addr::from(word(0)?);
            Some((address.to_string(), address.is_loopback()))
        }
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            let address = Ipv6Addr::from(bytes);
            let mapped = address
                .to_ipv4_mapped()
                .is_some_and(|inner| inner.is_loopback());
            Some((address.to_string(), address.is_loopback() || mapped))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture::Fixture;

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, state: &str, uid: u32) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid:>4} 0 1617 1\n"
        )
    }

    fn host(tcp: &str, tcp6: Option<&str>, udp: &str) -> Value {
        let host = Fixture::new(&[
            ("/proc/net/tcp", &format!("{HEADING}{tcp}")),
            ("/proc/net/udp", &format!("{HEADING}{udp}")),
        ]);
        if let Some(tcp6) = tcp6 {
            host.write("/proc/net/tcp6", format!("{HEADING}{tcp6}").as_bytes());
        }
        host.collect(&COLLECTOR)
    }

    #[test]
    fn addresses_are_decoded_and_loopback_is_known_in_all_its_forms() {
        for (hex, address, loopback) in [
            ("0100007F", "127.0.0.1", true),
            ("3500007F", "127.0.0.53", true),
            ("00000000", "0.0.0.0", false),
            ("020200C0", "192.0.2.2", false),
            ("00000000000000000000000000000000", "::", false),
            ("00000000000000000000000001000000", "::1", true),
            ("0000000000000000FFFF00000100007F", "::ffff:127.0.0.1", true),
            (
                "0000000000000000FFFF0000020200C0",
                "::ffff:192.0.2.2",
                false,
            ),
            ("B80D0120000000000000000001000000", "2001:db8::1", false),
        ] {
            assert_eq!(
                parse_address(hex),
                Some((address.to_owned(), loopback)),
                "{hex}"
            );
        }
        for hex in ["", "0100007", "0100007G", "é00007F", "+100007F0100007F"] {
            assert_eq!(parse_address(hex), None, "{hex}");
        }
    }

    #[test]
    fn only_sockets_that_wait_are_listed_and_without_ipv6_there_are_none_of_it() {
        let tcp = line("0100007F:0019", "0A", 0)
            + &line("00000000:0016", "0A", 0)
            + &line("00000000:0016", "0A", 0)
            + &line("020200C0:A408", "01", 1000);
        let udp = line("00000000:0044", "07", 101) + &line("020200C0:D431", "01", 101);
        let socket = |protocol, address, port, loopback, uid| json!({"protocol": protocol, "address": address, "port": port, "loopback": loopback, "uid": uid});
        let expected = json!({"listening": [
            socket("tcp", "0.0.0.0", 22, false, 0),
            socket("tcp", "127.0.0.1", 25, true, 0),
            socket("udp", "0.0.0.0", 68, false, 101),
        ]});
        assert_eq!(host(&tcp, None, &udp), expected);
    }

    /// A listener on a line nobody could read must not be missing from a list that looks whole.
    #[test]
    fn a_cut_or_strange_table_is_unknown() {
        let good = line("00000000:0016", "0A", 0);
        for tcp in [
            &good[..good.len() - 30],
            &format!("{good}\0\0\0\u{1}\n{good}"),
            &format!("{good}{}", "x".repeat(9000)),
            &good.replace("00000000:0016", "00000000:1F0016"),
        ] {
            let fact = host(tcp, None, "");
            let reason = Unknown::from_value(&fact).map(|unknown| unknown.reason);
            assert_eq!(reason, Some(Reason::Malformed), "{tcp:.80}: {fact}");
        }
        let nothing = Fixture::new(&[]).collect(&COLLECTOR);
        assert_eq!(
            Unknown::from_value(&nothing).unwrap().reason,
            Reason::Unreadable
        );
    }
}
