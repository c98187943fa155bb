//! The other ends: small servers that do what their standards say, or what a test wants them to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

/// Longer than anything here takes: a test that reaches it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate for `localhost`, signed by itself.
pub(super) struct Certified {
    pub(super) pem: String,
    config: Arc<ServerConfig>,
}

impl Certified {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self {
            pem: made.cert.pem(),
            config: Arc::new(config),
        }
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Takes connections until one of them brings a request.
    pub(super) fn http_sink(&self, answer: &'static [u8]) -> (SocketAddr, JoinHandle<HttpRequest>) {
        let (listener, address) = listen();
        let config = self.server();
        let thread = std::thread::spawn(move || {
            loop {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(session, stream));
                if let Some(request) = HttpRequest::read(&mut stream) {
                    stream.get_mut().write_all(answer).unwrap();
                    stream.get_mut().conn.send_close_notify();
                    stream.get_mut().flush().unwrap();
                    return request;
                }
            }
        });
        (address, thread)
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(super) struct HttpRequest {
    pub(super) method: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl HttpRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_str())
    }

    /// `None`: the connection ended before a request was there.
    fn read(stream: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let method = line.split(' ').next()?.to_owned();
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ")?;
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut request = Self {
            method,
            headers,
            body: Vec::new(),
        };
        let len: usize = request.header("content-length")?.parse().ok()?;
        request.body = vec![0; len];
        stream.read_exact(&mut request.body).ok()?;
        Some(request)
    }
}

/// Answers one request after the other with `answers`, each on a connection of its own; then, with
/// `hang`, takes one more and says nothing until the other end gives up.
pub(super) fn http_sink(
    answers: Vec<Vec<u8>>,
    hang: Option<Duration>,
) -> (SocketAddr, JoinHandle<Vec<HttpRequest>>) {
    let (listener, address) = listen();
    let thread = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let request = HttpRequest::read(&mut stream).unwrap();
            // What the other end makes of it is the test's matter.
            stream.get_mut().write_all(&answer).ok();
            requests.push(request);
        }
        if let Some(hang) = hang {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(hang)).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).ok();
        }
        requests
    });
    (address, thread)
}

/// One session of SMTP as the sink saw it.
#[derive(Default)]
pub(super) struct Session {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) message: String,
    /// As AUTH PLAIN gave it.
    pub(super) login: Option<String>,
    pub(super) is_login_secret: bool,
}

impl Session {
    /// Names and values, continued lines joined.
    pub(super) fn headers(&self) -> Vec<(String, String)> {
        let head = self.message.split("\r\n\r\n").next().unwrap();
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in head.split("\r\n") {
            if line.starts_with([' ', '\t']) {
                headers.last_mut().unwrap().1.push_str(line);
            } else {
                let (name, value) = line.split_once(": ").unwrap();
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        headers
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Takes one mail and answers its recipients with `answer`. `tls`: with this certificate, from the
/// start or after STARTTLS.
pub(super) fn smtp_sink(
    answer: &'static str,
    tls: Option<(Arc<ServerConfig>, bool)>,
) -> (SocketAddr, JoinHandle<Session>) {
    let (listener, address) = listen();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut session = Session::default();
        let secured = |stream: TcpStream, config: &Arc<ServerConfig>| -> Box<dyn Stream> {
            let connection = ServerConnection::new(Arc::clone(config)).unwrap();
            Box::new(StreamOwned::new(connection, stream))
        };
        match &tls {
            Some((config, true)) => {
                talk(secured(stream, config), &mut session, answer, Tls::On);
            }
            Some((config, false)) => {
                let plain = stream.try_clone().unwrap();
                if talk(Box::new(plain), &mut session, answer, Tls::Offered) {
                    talk(secured(stream, config), &mut session, answer, Tls::Begun);
                }
            }
            None => {
                talk(Box::new(stream), &mut session, answer, Tls::Off);
            }
        }
        session
    });
    (address, thread)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    Off,
    Offered,
    /// After STARTTLS: no greeting.
    Begun,
    On,
}

/// True: STARTTLS was asked for.
fn talk(stream: Box<dyn Stream>, session: &mut Session, answer: &str, tls: Tls) -> bool {
    let mut stream = BufReader::new(stream);
    let say = |stream: &mut BufReader<Box<dyn Stream>>, text: &str| {
        let out = stream.get_mut();
        out.write_all(format!("{text}\r\n").as_bytes()).ok();
        out.flush().ok();
    };
    if tls != Tls::Begun {
        say(&mut stream, "220 sink ESMTP");
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).unwrap_or(0) == 0 {
            return false;
        }
        let line = line.trim_end();
        let upper = line.to_ascii_uppercase();
        if upper.starts_with("EHLO") {
            say(&mut stream, "250-sink");
            if tls == Tls::Offered {
                say(&mut stream, "250-STARTTLS");
            }
            say(&mut stream, "250-AUTH PLAIN");
            say(&mut stream, "250 8BITMIME");
        } else if upper == "STARTTLS" {
            say(&mut stream, "220 go on");
            return true;
        } else if let Some(login) = line.strip_prefix("AUTH PLAIN ") {
            use base64::{Engine as _, engine::general_purpose::STANDARD};
            let login = STANDARD.decode(login).unwrap();
            session.login = Some(String::from_utf8(login).unwrap());
            session.is_login_secret = matches!(tls, Tls::Begun | Tls::On);
            say(&mut stream, "235 welcome");
        } else if let Some(from) = upper.strip_prefix("MAIL FROM:") {
            session.from = from.split(' ').next().unwrap().to_ascii_lowercase();
            say(&mut stream, "250 OK");
        } else if let Some(to) = upper.strip_prefix("RCPT TO:") {
            session.to.push(to.to_ascii_lowercase());
            say(&mut stream, answer);
        } else if upper == "DATA" {
            say(&mut stream, "354 go on");
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).unwrap_or(0) == 0 || line == ".\r\n" {
                    break;
                }
                session
                    .message
                    .push_str(line.strip_prefix('.').unwrap_or(&line));
            }
            say(&mut stream, "250 OK");
        } else if upper == "QUIT" {
            say(&mut stream, "221 bye");
            return false;
        } else {
            say(&mut stream, "502 no");
        }
    }
}

pub(super) fn read_all(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    match tls {
        None => drop({ stream }.read_to_end(&mut all).unwrap()),
        Some(config) => {
            let session = ServerConnection::new(config).unwrap();
            let mut stream = StreamOwned::new(session, stream);
            stream.read_to_end(&mut all).unwrap();
        }
    }
    all
}

/// Messages by their octet counts (RFC 6587, 3.4.1), to the last octet.
pub(super) fn syslog_messages(mut octets: &[u8]) -> Vec<SyslogMessage> {
    let mut messages = Vec::new();
    while !octets.is_empty() {
        let space = octets.iter().position(|octet| *octet == b' ').unwrap();
        let len = std::str::from_utf8(&octets[..space]).unwrap();
        assert!(!len.starts_with('0'), "MSG-LEN = NONZERO-DIGIT *DIGIT");
        let len: usize = len.parse().unwrap();
        let message = &octets[space + 1..space + 1 + len];
        messages.push(SyslogMessage::parse(std::str::from_utf8(message).unwrap()));
        octets = &octets[space + 1 + len..];
    }
    messages
}

/// A message by the grammar of RFC 5424, section 6; anything else panics.
#[derive(Debug)]
pub(super) struct SyslogMessage {
    pub(super) priority: u16,
    pub(super) id: String,
    pub(super) structure: Vec<(String, String)>,
    pub(super) text: String,
}

impl SyslogMessage {
    pub(super) fn parse(message: &str) -> Self {
        let rest = message.strip_prefix('<').expect("PRI");
        let (priority, rest) = rest.split_once('>').expect("PRI");
        let rest = rest.strip_prefix("1 ").expect("VERSION 1");
        let mut fields = rest.splitn(6, ' ');
        let mut field = |name: &str, len_max: usize| {
            let field = fields.next().expect(name);
            assert!((1..=len_max).contains(&field.len()), "{name}: {field}");
            assert!(
                field.chars().all(|char| char.is_ascii_graphic()),
                "{name}: {field}"
            );
            field.to_owned()
        };
        let time = field("TIMESTAMP", 64);
        assert!(
            time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(),
            "{time}"
        );
        field("HOSTNAME", 255);
        assert_eq!(field("APP-NAME", 48), "holdfast");
        assert!(field("PROCID", 128).parse::<u32>().is_ok());
        let id = field("MSGID", 32);
        let (structure, text) = structure(fields.next().expect("STRUCTURED-DATA"));
        assert!(
            priority
                .parse::<u16>()
                .is_ok_and(|it| it <= 191 && it.to_string() == priority)
        );
        Self {
            priority: priority.parse().unwrap(),
            id,
            structure,
            text: text.to_owned(),
        }
    }
}

/// `- MSG`, or `[ID NAME="VALUE" …] MSG`.
fn structure(text: &str) -> (Vec<(String, String)>, &str) {
    if let Some(rest) = text.strip_prefix('-') {
        return (Vec::new(), rest.strip_prefix(' ').unwrap_or(rest));
    }
    let mut rest = text.strip_prefix('[').expect("SD-ELEMENT");
    let end = rest.find([' ', ']']).unwrap();
    let (id, after) = rest.split_at(end);
    let (name, number) = id.split_once('@').expect("SD-ID with an enterprise number");
    assert!(!name.is_empty() && number.parse::<u32>().is_ok());
    rest = after;
    let mut found = Vec::new();
    while let Some(of) = rest.strip_prefix(' ') {
        let (name, of) = of.split_once("=\"").expect("SD-PARAM");
        let is_name = |char: char| char.is_ascii_graphic() && !"= ]\"".contains(char);
        assert!(
            (1..=32).contains(&name.len()) && name.chars().all(is_name),
            "{name}"
        );
        let (mut value, mut chars) = (String::new(), of.char_indices());
        let end = loop {
            match chars.next().expect("PARAM-VALUE ends") {
                (at, '"') => break at,
                (_, '\\') => {
                    let (_, escaped) = chars.next().unwrap();
                    assert!("\"\\]".contains(escaped), "only these are escaped");
                    value.push(escaped);
                }
                (_, ']') => panic!("an unescaped ] in {of}"),
                (_, char) => value.push(char),
            }
        };
        found.push((name.to_owned(), value));
        rest = &of[end + 1..];
    }
    let rest = rest.strip_prefix(']').expect("SD-ELEMENT ends");
    (found, rest.strip_prefix(' ').unwrap_or(rest))
}
