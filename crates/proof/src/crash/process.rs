//! The product as a process: started, waited for, killed.
//!
//! A child never outlives what started it, and nothing waits without a bound: a child that gives no
//! answer within its deadline is a breach of its own.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use world::{Clock, RealClock};

use super::breach::{Breach, Fault};

/// How long any command may take on a machine that is busy with other things. Arbitrary; a debug
/// binary that checks a quarter of a million records needs six seconds there.
pub(crate) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(90);

/// How long the kernel may take to end a process that was killed, and its pipe to close.
const DEATH_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long the standard error of a dead process is waited for. Arbitrary, and enough for a thread
/// to read a pipe on a busy machine.
const ORPHAN_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a child is looked at. Kills are not bound to it: they sleep exactly until their moment.
const POLL: Duration = Duration::from_millis(1);

/// Bytes of output kept; the longest are exports of a journal with some hundred thousand records.
const OUTPUT_LEN_MAX: u64 = 512 << 20;

/// How long a process that is asked to stop may take, whatever it is doing, by the contract.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often a binary that is still open for writing is tried, a poll apart.
const BUSY_TRIES_MAX: u32 = 1000;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// The program under test, and the directory its relative paths are in.
#[derive(Debug)]
pub(crate) struct Product {
    pub(crate) binary: PathBuf,
    pub(crate) sandbox: PathBuf,
    pub(crate) clock: RealClock,
    /// [`ANSWER_WAIT_MAX`], but in a test of it.
    pub(crate) answer_wait_max: Duration,
    /// Set when whoever started this wants it to end.
    pub(crate) stop: Arc<AtomicBool>,
}

/// A child that was started and not yet waited for.
#[derive(Debug)]
pub(crate) struct Running<'p> {
    product: &'p Product,
    words: String,
    started: Duration,
    child: Child,
    stdout: Pipe,
    stderr: Pipe,
}

/// A child that is no more.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The command, for people.
    pub(crate) words: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// From its start until it was seen to be gone.
    pub(crate) took: Duration,
}

/// What came through a pipe so far, read by a thread so that the child never waits for a reader.
#[derive(Debug)]
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Product {
    /// Starts `holdfast` on a data directory, with nothing of this process's environment.
    pub(crate) fn start(&self, data_dir: &Path, words: &[&str]) -> Result<Running<'_>, Fault> {
        self.start_with(data_dir, words, &[], None)
    }

    /// Like [`Product::start`], with more in its environment, and a file as its standard input.
    pub(crate) fn start_with(
        &self,
        data_dir: &Path,
        words: &[&str],
        environment: &[(&str, OsString)],
        input: Option<&Path>,
    ) -> Result<Running<'_>, Fault> {
        self.start_behind(&[], data_dir, words, environment, input)
    }

    /// Like [`Product::start_with`], by another program, which becomes this one.
    #[allow(
        clippy::disallowed_methods,
        reason = "this program exists to run others"
    )]
    pub(crate) fn start_behind(
        &self,
        prefix: &[&str],
        data_dir: &Path,
        words: &[&str],
        environment: &[(&str, OsString)],
        input: Option<&Path>,
    ) -> Result<Running<'_>, Fault> {
        let input = match input {
            Some(path) => {
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
                let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
                Stdio::from(file.map_err(io::Error::from)?)
            }
            None => Stdio::null(),
        };
        let mut command = match prefix.split_first() {
            None => Command::new(&self.binary),
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(&self.binary);
                command
            }
        };
        command
            .args(words)
            .current_dir(&self.sandbox)
            .env_clear()
            .env("HOLDFAST_DATA_DIR", data_dir)
            .env("HOME", &self.sandbox)
            .env("RUST_BACKTRACE", "1")
            .env("TZ", "UTC")
            // Any port: the usual one belongs to whatever runs beside the proof.
            .env("HOLDFAST_EVENTS_LISTEN", "127.0.0.1:0")
            .env("HOLDFAST_SERVER_LISTEN", "127.0.0.1:0")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.spawn(&mut command).map_err(|error| {
            let path = self.binary.display();
            io::Error::new(error.kind(), format!("starting {path}: {error}"))
        })?;
        let stdout = Pipe::drain(child.stdout.take());
        let stderr = Pipe::drain(child.stderr.take());
        Ok(Running {
            product: self,
            words: format!("{} {}", self.name(), words.join(" ")),
            started: self.clock.monotonic(),
            child,
            stdout,
            stderr,
        })
    }

    /// For people.
    fn name(&self) -> String {
        let name = self.binary.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// A process that another thread is starting this moment may hold the descriptor through which
    /// the binary was copied, until it executes its own program.
    fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        for _ in 0..BUSY_TRIES_MAX {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    self.clock.sleep(POLL);
                }
                other => return other,
            }
        }
        command.spawn()
    }

    /// Runs a command to its end. A breach when it does not come, or comes by a signal or a panic.
    pub(crate) fn run(&self, data_dir: &Path, words: &[&str]) -> Result<Ended, Fault> {
        let ended = self.start(data_dir, words)?.end()?;
        ended.is_orderly()?;
        Ok(ended)
    }

    fn stopped(&self) -> Result<(), Fault> {
        if self.stop.load(Ordering::Relaxed) {
            Err(Fault::Stopped)
        } else {
            Ok(())
        }
    }
}

impl Running<'_> {
    /// Waits until the child has printed a whole line, or has ended. Gives the time since its start.
    pub(crate) fn first_line(&mut self) -> Result<Duration, Fault> {
        let wait_max = self.product.answer_wait_max;
        let limit = self.product.clock.monotonic() + wait_max;
        loop {
            let ended = self.child.try_wait()?.is_some();
            if ended || self.stdout.has_line() {
                return Ok(self.product.clock.monotonic().saturating_sub(self.started));
            }
            self.product.stopped()?;
            if self.product.clock.monotonic() > limit {
                return Err(self.hangs(wait_max, "had printed nothing"));
            }
            self.product.clock.sleep(POLL);
        }
    }

    /// Whether it has printed `text`, on either of its outputs.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        self.stdout.holds(text.as_bytes()) || self.stderr.holds(text.as_bytes())
    }

    /// Everything it has printed to standard error so far.
    pub(crate) fn told(&self) -> String {
        String::from_utf8_lossy(&lock(&self.stderr.bytes)).into_owned()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool, Fault> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// To stop it where it is, or to let it go on. One that is to stop stands still when this returns.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), Fault> {
        // A child that was waited for has no process to signal; its id may be another's by then.
        if self.child.try_wait()?.is_none() {
            let pid = Pid::from_child(&self.child);
            rustix::process::kill_process(pid, signal).map_err(io::Error::from)?;
            if signal == Signal::STOP {
                self.wait_still(pid)?;
            }
        }
        Ok(())
    }

    /// One thread takes the signal and stops the others, which go on until then: a node that was told to stop
    /// was seen to answer milliseconds later. The last one that stops is told of as the child's stop.
    fn wait_still(&mut self, pid: Pid) -> Result<(), Fault> {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let begun = self.product.clock.monotonic();
        while waitid(WaitId::Pid(pid), options)
            .map_err(io::Error::from)?
            .is_none()
        {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            if self.product.clock.monotonic() - begun > DEATH_WAIT_MAX {
                return Err(io::Error::other("a child did not stop").into());
            }
            self.product.clock.sleep(POLL);
        }
        Ok(())
    }

    /// Lets `delay` pass, then sends SIGKILL. Whether it found the process alive, [`Ended`] tells.
    pub(crate) fn kill_after(mut self, delay: Duration) -> Result<Ended, Fault> {
        self.product.clock.sleep(delay);
        self.child.kill()?;
        self.reap(DEATH_WAIT_MAX, "had not died of SIGKILL")
    }

    /// Lets `delay` pass, then asks the child to stop.
    pub(crate) fn stop_after(mut self, delay: Duration) -> Result<Ended, Fault> {
        self.product.clock.sleep(delay);
        // A child that was waited for has no process to signal; its id may be another's by then.
        if self.child.try_wait()?.is_none() {
            let pid = Pid::from_child(&self.child);
            rustix::process::kill_process(pid, Signal::TERM).map_err(io::Error::from)?;
        }
        self.reap(STOP_WAIT_MAX, "had not stopped, asked by SIGTERM,")
    }

    /// Waits for its end, whatever that is.
    pub(crate) fn end(self) -> Result<Ended, Fault> {
        let wait_max = self.product.answer_wait_max;
        self.reap(wait_max, "had not ended")
    }

    fn reap(mut self, wait_max: Duration, failing: &str) -> Result<Ended, Fault> {
        let limit = self.product.clock.monotonic() + wait_max;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            self.product.stopped()?;
            if self.product.clock.monotonic() > limit {
                return Err(self.hangs(wait_max, failing));
            }
            self.product.clock.sleep(POLL);
        };
        let took = self.product.clock.monotonic().saturating_sub(self.started);
        // What it had written is in the pipes still. Standard error may be shared with a program
        // it started and left behind: that one is taken as far as it came.
        if !self.has_closed(&self.stdout, DEATH_WAIT_MAX) {
            return Err(self.hangs(DEATH_WAIT_MAX, "was dead with its standard output open"));
        }
        self.has_closed(&self.stderr, ORPHAN_WAIT_MAX);
        let stdout = self.stdout.taken();
        if stdout.len() as u64 == OUTPUT_LEN_MAX {
            let words = format!("{}: more than {OUTPUT_LEN_MAX} bytes printed", self.words);
            return Err(io::Error::other(words).into());
        }
        Ok(Ended {
            words: std::mem::take(&mut self.words),
            status,
            stdout,
            stderr: String::from_utf8_lossy(&self.stderr.taken()).into_owned(),
            took,
        })
    }

    fn has_closed(&self, pipe: &Pipe, wait_max: Duration) -> bool {
        let limit = self.product.clock.monotonic() + wait_max;
        while !pipe.reader.is_finished() {
            if self.product.clock.monotonic() > limit {
                return false;
            }
            self.product.clock.sleep(POLL);
        }
        true
    }

    fn hangs(&self, wait_max: Duration, failing: &str) -> Fault {
        let waited = self.product.clock.monotonic().saturating_sub(self.started);
        Breach::new(
            format!("`{}` ends or answers in time", self.words),
            format!("at most {} s", wait_max.as_secs()),
            format!("it {failing} {} s after its start", waited.as_secs()),
        )
        .into()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Both fail only for a child that was waited for already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Ended {
    /// Whether the kill was in time.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(SIGKILL)
    }

    /// A process that was asked to stop ended well, or had not come to listen for such requests.
    pub(crate) fn has_stopped(&self) -> Result<(), Fault> {
        let unheard = self.status.signal() == Some(SIGTERM) && self.stdout.is_empty();
        if unheard || self.code() == Some(0) {
            return Ok(());
        }
        Err(self.breach("stops in order when it is asked to").into())
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// A command that ended by itself ended with an exit code of the documented ones.
    pub(crate) fn is_orderly(&self) -> Result<(), Fault> {
        let documented = self.code().is_some_and(|code| (0..=3).contains(&code));
        if documented && !self.stderr.contains("panicked") {
            return Ok(());
        }
        Err(self.breach("ends with an exit code from 0 to 3").into())
    }

    /// That this command did not keep `promise`.
    pub(crate) fn breach(&self, promise: &str) -> Breach {
        Breach::new(
            format!("`{}` {promise}", self.words),
            "-".to_owned(),
            format!("{}; it said: {}", self.status, self.stderr.trim()),
        )
    }
}

impl Pipe {
    fn drain(from: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let Some(from) = from else { return };
            let mut from = from.take(OUTPUT_LEN_MAX);
            let mut chunk = vec![0; 64 << 10];
            // An error ends it like the end of the pipe: a child's death is all there is to read.
            while let Ok(read @ 1..) = from.read(&mut chunk) {
                lock(&kept).extend_from_slice(&chunk[..read]);
            }
        });
        Self { bytes, reader }
    }

    fn has_line(&self) -> bool {
        lock(&self.bytes).contains(&b'\n')
    }

    fn holds(&self, text: &[u8]) -> bool {
        let bytes = lock(&self.bytes);
        bytes.windows(text.len()).any(|window| window == text)
    }

    fn taken(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.bytes))
    }
}

/// The bytes are whole whatever a thread died of: they are only ever appended to.
fn lock(bytes: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}
