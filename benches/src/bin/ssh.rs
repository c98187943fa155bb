//! A scan over SSH beside the same scan without it, and what a slow link adds.
//!
//! ```sh
//! cargo build --release && cd benches && cargo run --release --bin ssh -- ../target/release/holdfast
//! ```
//!
//! As root, with openssh-server installed: starts an sshd of its own on loopback, logs in as root, and runs the shipped
//! binary in turn locally, over loopback, and through a relay that holds each direction back by [`DELAY`]. The
//! data directory is the same for all, so that what a start costs is in each figure.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use benches::{Series, quantile};

const ROUNDS: usize = 7;
/// Of each direction: 50 ms there and back.
const DELAY: Duration = Duration::from_millis(25);
/// Fewer lines are no scan: a host that could not be reached is told quickly.
const VERDICTS_MIN: usize = 300;
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

fn main() {
    let binary = env::args()
        .nth(1)
        .unwrap_or_else(|| "../target/release/holdfast".to_owned());
    let binary = fs::canonicalize(&binary).expect("the binary is built");
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let server = Server::start(dir.path());
    let relay = relay(server.port);
    let holdfast = |args: &[&str]| -> Output {
        Command::new(&binary)
            .args(args)
            .env("HOLDFAST_DATA_DIR", dir.path().join("data"))
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    };
    let key = dir.path().join("user");
    let key = key.to_str().expect("the path is text");
    done(holdfast(&[
        "credential",
        "add",
        "default",
        "--user",
        "root",
        "--key",
        key,
    ]));
    for (name, port) in [("near", server.port), ("far", relay)] {
        let port = port.to_string();
        let accepted = fingerprint(&dir.path().join("host.pub"));
        done(holdfast(&[
            "host",
            "add",
            name,
            "127.0.0.1",
            "--port",
            &port,
            "--accept-key",
            &accepted,
        ]));
    }
    for walk in [false, true] {
        contest(walk, &holdfast);
    }
}

/// Findings are a result; anything but a result ends the measurement.
fn done(output: Output) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{said}");
}

/// Each way in turn, [`ROUNDS`] times.
fn contest(walk: bool, holdfast: &dyn Fn(&[&str]) -> Output) {
    let more: &[&str] = if walk { &[] } else { &["--no-walk"] };
    let mut ways = [
        ("local", None),
        ("SSH, loopback", Some("near")),
        ("SSH, +50 ms", Some("far")),
    ]
    .map(|(name, host)| (Series::new(name), host));
    for _ in 0..ROUNDS {
        for (series, host) in &mut ways {
            let mut args = vec!["scan", "--quiet", "--output", "csv"];
            args.extend(host.iter().flat_map(|host| ["--host", host]));
            args.extend(more);
            let begin = Instant::now();
            let output = holdfast(&args);
            series.figures.push(begin.elapsed().as_secs_f64());
            let verdicts = output.stdout.iter().filter(|byte| **byte == b'\n').count();
            assert!(
                verdicts > VERDICTS_MIN,
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            done(output);
        }
    }
    println!(
        "\n| scan {} | median s | of local |",
        if walk {
            "with the walk"
        } else {
            "without the walk"
        }
    );
    println!("|---|---:|---:|");
    for (series, _) in &ways {
        let ratios = series.ratios(&ways[0].0);
        println!(
            "| {} | {:.2} | {:.2} |",
            series.name,
            series.median(),
            quantile(&ratios, 0.5)
        );
    }
}

/// An sshd of this run.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(dir: &Path) -> Self {
        for name in ["host", "user"] {
            let status = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(name))
                .status()
                .expect("openssh-client is installed");
            assert!(status.success(), "ssh-keygen ended with {status}");
        }
        fs::create_dir_all("/run/sshd").expect("the server's own directory can be made, as root");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port is free")
            .port();
        let config = dir.join("sshd_config");
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nPidFile none\n\
             StrictModes no\nUsePAM yes\nPermitRootLogin yes\nLogLevel ERROR\n",
            dir.display()
        );
        fs::write(&config, text).expect("the directory takes a file");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .expect("openssh-server is installed");
        let server = Self { child, port };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < START, "sshd does not listen");
            thread::yield_now();
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn fingerprint(public: &Path) -> String {
    let output = Command::new("ssh-keygen")
        .arg("-lf")
        .arg(public)
        .output()
        .expect("openssh-client is installed");
    let line = String::from_utf8(output.stdout).expect("it prints text");
    let word = line
        .split_whitespace()
        .nth(1)
        .expect("the fingerprint is the second word");
    word.to_owned()
}

/// Listens and hands on to `port`, each direction later by [`DELAY`].
fn relay(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let own = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for near in listener.incoming() {
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(("127.0.0.1", port))) else {
                continue;
            };
            near.set_nodelay(true).ok();
            far.set_nodelay(true).ok();
            let back = (far.try_clone(), near.try_clone());
            thread::spawn(move || hold_back(near, far));
            if let (Ok(far), Ok(near)) = back {
                thread::spawn(move || hold_back(far, near));
            }
        }
    });
    own
}

/// Each piece leaves [`DELAY`] after it came, however many are on the way.
fn hold_back(mut from: TcpStream, mut to: TcpStream) {
    let (sender, receiver) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || -> io::Result<()> {
        for (due, piece) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            to.write_all(&piece)?;
        }
        to.shutdown(Shutdown::Write)
    });
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if sender
            .send((Instant::now() + DELAY, piece[..count].to_vec()))
            .is_err()
        {
            break;
        }
    }
    drop(sender);
    writer.join().expect("the writer does not panic").ok();
}
