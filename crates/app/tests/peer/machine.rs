//! Machines that share one PostgreSQL: each a directory of its own and an `up` that can be killed.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    holdfast::{Run, Sandbox},
    serving::PATIENCE,
};

/// How long to wait for a word before it is looked whether a process lives.
const LOOK: Duration = Duration::from_millis(50);

/// The keys that all machines of a site must have.
pub(crate) const KEYS: [&str; 2] = ["data.key", "ledger.key"];

pub(crate) struct Machine {
    pub(crate) sandbox: Sandbox,
    url: String,
}

/// A running `up`, killed when it is dropped.
pub(crate) struct Up {
    child: Child,
    told: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Machine {
    pub(crate) fn on(url: &str) -> Self {
        Self {
            sandbox: Sandbox::new(),
            url: url.to_owned(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.sandbox.command(args);
        command
            .env("HOLDFAST_STORE_POSTGRES", &self.url)
            .env("HOLDFAST_EVENTS_ENABLED", "false")
            .env("HOLDFAST_SERVER_LISTEN", "127.0.0.1:0");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().expect("the binary starts"))
    }

    pub(crate) fn done(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}{}", run.stdout, run.stderr);
        run.stdout
    }

    /// With what an operator is told to copy.
    pub(crate) fn take_keys_of(&self, other: &Self) {
        let keys = self.sandbox.data_dir().join("keys");
        let mut dir = fs::DirBuilder::new();
        dir.mode(0o700).recursive(true).create(&keys).unwrap();
        for key in KEYS {
            let to = keys.join(key);
            fs::copy(other.sandbox.data_dir().join("keys").join(key), &to).unwrap();
            fs::set_permissions(to, PermissionsExt::from_mode(0o600)).unwrap();
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.sandbox.data_dir().join("keys").join(key).exists()
    }

    pub(crate) fn up(&self) -> Up {
        let mut child = self
            .command(&["up", "--no-walk"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let told = Arc::<(Mutex<Vec<String>>, Condvar)>::default();
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&told));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
                lines.1.notify_all();
            }
        });
        Up { child, told }
    }
}

impl Up {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn told(&self) -> String {
        self.told.0.lock().unwrap().join("\n")
    }

    /// Until it tells something more, or for so long.
    pub(crate) fn listen(&self, time_max: Duration) {
        let (told, more) = &*self.told;
        let before = told.lock().unwrap();
        let known = before.len();
        let waited = more.wait_timeout_while(before, time_max, |told| told.len() == known);
        drop(waited.unwrap());
    }

    /// Until it serves, which is the last thing that it begins.
    pub(crate) fn serves(&mut self) -> &mut Self {
        let begun = Instant::now();
        while !self.told().contains("console at http") {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.told());
            assert!(begun.elapsed() < PATIENCE, "{}", self.told());
            self.listen(LOOK);
        }
        self
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Its exit code, once it ends by itself.
    pub(crate) fn ends(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                return ended.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on: {}", self.told());
            self.listen(LOOK);
        }
    }

    /// As a loss of power ends it.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
