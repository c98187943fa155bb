//! A running `holdfast events serve`, and speaking to it by hand: what no HTTP library would send is
//! sent too.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::holdfast::{BINARY, Run, Sandbox};

/// Longer than anything here takes on a loaded machine: a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server, ended with the test.
pub(crate) struct Serving {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Serving {
    pub(crate) fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(
            sandbox,
            &["events", "serve", "--listen", "127.0.0.1:0"],
            &[],
        )
    }

    pub(crate) fn start_with(
        sandbox: &Sandbox,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = sandbox.command(args);
        command.envs(environment.iter().copied());
        Self::start_command(&mut command)
    }

    /// On a disk of its own of so many MiB, with a file `ballast` on it; in a mount namespace of its own.
    pub(crate) fn start_on_small_disk(sandbox: &Sandbox, disk_mib: u32, ballast_mib: u32) -> Self {
        let dir = sandbox.data_dir();
        std::fs::create_dir_all(&dir).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={disk_mib}m tmpfs '{0}' && \
             head -c {ballast_mib}M /dev/zero > '{0}/ballast' && \
             exec '{BINARY}' events serve --listen 127.0.0.1:0",
            dir.display()
        );
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command
            .args(["--mount", "sh", "-c", &script])
            .env("HOLDFAST_DATA_DIR", &dir)
            .stdin(Stdio::null());
        Self::start_command(&mut command)
    }

    /// A file of the server's own mount namespace.
    pub(crate) fn file(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(path.strip_prefix("/").expect("paths here are absolute"))
    }

    fn start_command(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut told = String::new();
        let address = loop {
            let begun = told.len();
            let read = lines.read_line(&mut told).expect("standard error is text");
            if read == 0 {
                panic!("no server: {:?} {told}", child.wait());
            }
            if let Some((_, rest)) = told[begun..].split_once("http://") {
                let end = rest.find(' ').unwrap_or(rest.len());
                break rest[..end].parse().expect("an address");
            }
        };
        // Read on, or a server that tells much would wait for a reader; shown when the test fails.
        thread::spawn(move || {
            lines
                .lines()
                .map_while(Result::ok)
                .for_each(|it| eprintln!("{it}"))
        });
        Self { child, address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request on a connection of its own.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
        exchange(&mut self.connect(), method, target, headers, body)
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], b"")
    }

    pub(crate) fn post(&self, target: &str, media_type: &str, body: &[u8]) -> Reply {
        let media_type = format!("Content-Type: {media_type}");
        self.send("POST", target, &[&media_type], body)
    }

    /// Peak resident memory of the server in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("the kernel tells") / 1024
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn stop(self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Its exit code, once it ends.
    pub(crate) fn wait(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Ended already where the test stopped it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> Reply {
    let mut request = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.push_str("Host: localhost\r\n");
    }
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    if method != "GET" && !headers.iter().any(|header| header.starts_with("Transfer")) {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    // A server that refuses may close before it has read all; then its answer is what counts.
    drop(stream.write_all(&bytes));
    reply(stream)
}

/// Reads one answer, its body by length or in chunks.
pub(crate) fn reply(stream: &mut impl Read) -> Reply {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = stream.read_line(&mut head).expect("an answer");
        assert!(read > 0, "the connection ended: `{head}`");
    }
    let mut reply = Reply {
        status: head[9..12].parse().expect("a status"),
        head,
        body: Vec::new(),
    };
    if reply.header("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a chunk");
            let len = usize::from_str_radix(line.trim(), 16).expect("a length");
            let mut chunk = vec![0; len + 2];
            stream.read_exact(&mut chunk).expect("a whole chunk");
            reply.body.extend_from_slice(&chunk[..len]);
            if len == 0 {
                break;
            }
        }
    } else {
        let len = reply
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        reply.body.resize(len, 0);
        stream.read_exact(&mut reply.body).expect("a whole body");
    }
    reply
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(serde_json::from_str);
        lines
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// Sends lines to the Unix socket and reads as many answers.
pub(crate) fn send_lines(sandbox: &Sandbox, lines: &[&str]) -> Vec<Value> {
    let mut stream = UnixStream::connect(sandbox.data_dir().join("events/socket")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for line in lines {
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
    }
    let answers = BufReader::new(stream).lines().take(lines.len());
    let answers = answers.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    answers.collect()
}

/// The events that are kept, asked by the command line.
pub(crate) fn kept(sandbox: &Sandbox) -> Vec<Value> {
    let run: Run = sandbox.run(["events", "query", "--output", "json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines = run.stdout.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}
