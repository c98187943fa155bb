//! A receiver that behaves as receivers do: it fails, stalls, refuses a part, hangs up, comes back.
//!
//! Written for these tests against the protocols, with nothing of ours in it: HTTP/1.1 by hand, OTLP
//! by its published messages.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
    },
    common::v1::any_value::Value,
};
use prost::Message;

/// How long it is waited for what must come. Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the peer does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Takes all of it.
    Accept,
    /// Takes all but this many, and does not say which; OTLP has no way to.
    Refuse(i64),
    /// Takes nothing.
    Status(u16, Vec<(&'static str, &'static str)>),
    /// Takes all of it and hangs up before it says so.
    HangUp,
    /// Never answers.
    Stall,
    /// Answers 200 with bytes that mean nothing.
    Nonsense,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// Names of the events, in order: `log.record.uid` of OTLP, `id` of JSON lines.
    pub(crate) events: Vec<String>,
    pub(crate) answer: Answer,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_str())
    }
}

type Script = Box<dyn FnMut(&Request) -> Answer + Send>;

struct Shared {
    script: Mutex<Script>,
    requests: Mutex<Vec<Request>>,
    arrived: Condvar,
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// Listens until it is dropped.
pub(crate) struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    pub(crate) fn new(script: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            requests: Mutex::new(Vec::new()),
            arrived: Condvar::new(),
            stop: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let serving = Arc::clone(&shared);
        let thread = thread::spawn(move || serve(&listener, &serving));
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn answers(&self, script: impl FnMut(&Request) -> Answer + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub(crate) fn wait_for_requests(&self, wanted: usize) {
        let mut requests = self.shared.requests.lock().unwrap();
        while requests.len() < wanted {
            let (woken, waited) = self
                .shared
                .arrived
                .wait_timeout(requests, PATIENCE)
                .unwrap();
            assert!(!waited.timed_out(), "{wanted} requests never came");
            requests = woken;
        }
    }

    /// Names of the events that it has, in the order in which they came, with repetitions.
    pub(crate) fn taken(&self) -> Vec<String> {
        let requests = self.shared.requests.lock().unwrap();
        let took = |request: &&Request| {
            matches!(
                request.answer,
                Answer::Accept | Answer::HangUp | Answer::Nonsense | Answer::Refuse(0)
            )
        };
        requests
            .iter()
            .filter(took)
            .flat_map(|request| request.events.clone())
            .collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
        // Wakes `accept`.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = Vec::new();
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        shared
            .open
            .lock()
            .unwrap()
            .push(stream.try_clone().unwrap());
        let shared = Arc::clone(shared);
        connections.push(thread::spawn(move || {
            // A sender that goes away in the middle is what these tests are about.
            drop(converse(&stream, &shared));
            drop(stream.shutdown(Shutdown::Both));
        }));
    }
    for connection in connections {
        drop(connection.join());
    }
}

fn converse(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(mut request) = read(&mut reader)? {
        let answer = (shared.script.lock().unwrap())(&request);
        request.answer = answer.clone();
        let sent = request.events.len();
        let is_otlp = request.header("content-type") == Some("application/x-protobuf");
        {
            let mut requests = shared.requests.lock().unwrap();
            requests.push(request);
            shared.arrived.notify_all();
        }
        match answer {
            Answer::HangUp => return Ok(()),
            Answer::Stall => {
                // Until the sender gives up.
                io::copy(&mut reader, &mut io::sink())?;
                return Ok(());
            }
            Answer::Accept if is_otlp => write(stream, 200, &[], &partial(None))?,
            Answer::Accept => {
                let line = "{\"id\":\"00:1:1\",\"duplicate\":false}\n";
                write(stream, 200, &[], line.repeat(sent).as_bytes())?;
            }
            Answer::Refuse(count) => write(stream, 200, &[], &partial(Some(count)))?,
            Answer::Status(status, headers) => write(stream, status, &headers, b"not now")?,
            Answer::Nonsense => write(stream, 200, &[], b"\xff\xff\xff")?,
        }
    }
    Ok(())
}

fn partial(refused: Option<i64>) -> Vec<u8> {
    let partial_success = refused.map(|rejected_log_records| ExportLogsPartialSuccess {
        rejected_log_records,
        error_message: "unfit\x1b[31m".to_owned(),
    });
    ExportLogsServiceResponse { partial_success }.encode_to_vec()
}

fn write(
    mut stream: &TcpStream,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut answer = format!(
        "HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    answer.push_str("\r\n");
    // At once: in two parts the second would wait for the sender's acknowledgement of the first.
    stream.write_all(&[answer.as_bytes(), body].concat())
}

fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request {
        path,
        headers,
        events: Vec::new(),
        answer: Answer::Stall,
    };
    let len: usize = request.header("content-length").unwrap().parse().unwrap();
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    if request.header("content-encoding") == Some("gzip") {
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut inflated)?;
        body = inflated;
    }
    request.events = match request.header("content-type") {
        Some("application/x-protobuf") => names_of_otlp(&body),
        _ => names_of_lines(&body),
    };
    Ok(Some(request))
}

fn names_of_otlp(body: &[u8]) -> Vec<String> {
    let request = ExportLogsServiceRequest::decode(body).unwrap();
    let records = request
        .resource_logs
        .iter()
        .flat_map(|resource| &resource.scope_logs)
        .flat_map(|scope| &scope.log_records);
    let name = |attribute: &opentelemetry_proto::tonic::common::v1::KeyValue| match attribute
        .value
        .as_ref()?
        .value
        .as_ref()?
    {
        Value::StringValue(name) if attribute.key == "log.record.uid" => Some(name.clone()),
        _ => None,
    };
    records
        .map(|record| record.attributes.iter().find_map(name).unwrap_or_default())
        .collect()
}

fn names_of_lines(body: &[u8]) -> Vec<String> {
    body.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            line["id"].as_str().unwrap().to_owned()
        })
        .collect()
}
