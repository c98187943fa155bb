//! The server in this process, on a store of its own, asked over real sockets.

mod changes;
mod console;
mod fuzz;
mod kept;
mod limits;
mod roles;
mod site;
mod standby;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use scan::token::{Request, Role, Scope};
use serde_json::Value;
use store::{Options, Store};
use world::{Disk, RealClock, RealDisk, RealRandom, Timestamp};

use super::*;
use crate::{cli::Global, config::Config};
use std::path::Path;

/// Longer than anything here takes on a loaded machine: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server, and a token of each role.
pub(super) struct Place {
    pub(super) server: Server,
    pub(super) shown: Shown,
    pub(super) address: SocketAddr,
    pub(super) store: Store,
    tokens: BTreeMap<&'static str, String>,
    _dir: tempfile::TempDir,
}

pub(super) fn open_store(dir: &Path) -> Store {
    let journal = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = wal::Local::open(journal).unwrap();
    let options = Options::new(
        dir.join("tables"),
        Arc::new(RealDisk),
        Arc::new(RealClock::new()),
        scan::tables(),
    );
    Store::open(options, Arc::new(journal)).unwrap().0
}

pub(super) fn config(dir: &Path) -> Config {
    let file = dir.join("holdfast.toml");
    RealDisk.replace(&file, b"").unwrap();
    let global = Global {
        server: None,
        server_cert: None,
        token_file: None,
        wait_for: None,
        data_dir: Some(dir.to_owned()),
        config: Some(file),
        output: None,
        quiet: true,
        verbose: false,
    };
    Config::load(&global).unwrap()
}

impl Place {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(prepare: impl FnOnce(&Store)) -> Self {
        Self::behind(|store| {
            prepare(store);
            store.clone()
        })
    }

    /// On the store that `serve` makes of the one on this disk.
    pub(super) fn behind(serve: impl FnOnce(&Store) -> Store) -> Self {
        Self::standing(serve, None)
    }

    /// On a node that says of itself how it stands.
    pub(super) fn standing(serve: impl FnOnce(&Store) -> Store, standing: Option<Asked>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let store = serve(&open_store(dir.path()));
        let listening = Listening {
            store: store.clone(),
            rules: Ruleset::load(&config, None).unwrap(),
            config: &config,
            dir: dir.path(),
            events: None,
            is_writer: standing.is_none(),
            standing,
        };
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let address = tcp.local_addr().unwrap();
        let server = Server::start(&config, dir.path(), tcp).unwrap();
        let shown = server.show(listening).unwrap();
        let mut place = Self {
            server,
            shown,
            address,
            store,
            tokens: BTreeMap::new(),
            _dir: dir,
        };
        for role in Role::ALL {
            let text = place.token(role.name(), role, Scope::default(), None);
            place.tokens.insert(role.name(), text);
        }
        place
    }

    pub(super) fn token(
        &self,
        name: &str,
        role: Role,
        scope: Scope,
        expires: Option<Timestamp>,
    ) -> String {
        let request = Request {
            name: name.to_owned(),
            role,
            scope,
            expires,
        };
        // Made a while ago, so that one that has expired could be made.
        let at = Timestamp::from_nanos(1);
        let mut transaction = self.store.begin().unwrap();
        let tokens = &self.shown.shared().tokens;
        let made = tokens.add_in(&mut transaction, &request, &RealRandom, at, "test");
        transaction.commit().unwrap();
        made.unwrap().1.to_string()
    }

    pub(super) fn of(&self, role: Role) -> &str {
        &self.tokens[role.name()]
    }

    pub(super) fn ask(&self, role: Role, method: &str, path: &str) -> Heard {
        self.send(&Sent::new(method, path).token(self.of(role)))
    }

    pub(super) fn tell(&self, role: Role, method: &str, path: &str, body: &Value) -> Heard {
        self.send(&Sent::new(method, path).token(self.of(role)).json(body))
    }

    pub(super) fn send(&self, sent: &Sent) -> Heard {
        let mut stream = self.connect();
        stream.write_all(&sent.bytes()).unwrap();
        Heard::read(&mut stream)
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// A request as its bytes are made.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    head: String,
    has_host: bool,
    body: Vec<u8>,
}

impl Sent {
    pub(super) fn new(method: &str, path: &str) -> Self {
        Self {
            head: format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n"),
            has_host: false,
            body: Vec::new(),
        }
    }

    pub(super) fn token(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.has_host |= name.eq_ignore_ascii_case("host");
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string().as_bytes())
    }

    pub(super) fn body(mut self, media_type: &str, body: &[u8]) -> Self {
        self = self.header("Content-Type", media_type);
        self.body = body.to_vec();
        self
    }

    /// For a connection on which more is to be asked.
    pub(super) fn kept_bytes(&self) -> Vec<u8> {
        let kept = Self {
            head: self.head.replace("Connection: close\r\n", ""),
            ..self.clone()
        };
        kept.bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = self.head.clone();
        if !self.has_host {
            text.push_str("Host: 127.0.0.1\r\n");
        }
        if !self.body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.body].concat()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Heard {
    pub(super) fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A server that closes at once may reset what it did not read; what came before counts.
        drop(stream.read_to_end(&mut bytes));
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| {
            panic!("no answer: {:?}", String::from_utf8_lossy(bytes));
        });
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let is_chunked = headers.iter().any(|(_, value)| value == "chunked");
        let body = &bytes[end + 4..];
        Self {
            status,
            body: if is_chunked {
                unchunk(body)
            } else {
                body.to_vec()
            },
            headers,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} {error}: {}", self.status, self.text()))
    }

    pub(super) fn must_be(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    pub(super) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let len = std::str::from_utf8(&bytes[..end]).unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        let chunk = &bytes[end + 2..];
        if len == 0 || chunk.len() < len + 2 {
            break;
        }
        body.extend_from_slice(&chunk[..len]);
        bytes = &chunk[len + 2..];
    }
    body
}

pub(super) fn ssh_host(name: &str) -> Value {
    serde_json::json!({ "name": name, "address": "192.0.2.7", "site": "berlin", "groups": ["web"] })
}
