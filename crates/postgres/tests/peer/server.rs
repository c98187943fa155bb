//! A PostgreSQL of the tests' own: a cluster in a directory of its own, reached by a Unix socket in it, of
//! an unprivileged user, gone when it is dropped.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use postgres::Address;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Users that may run a server where the tests run as root, which PostgreSQL refuses.
const USERS: [&str; 2] = ["postgres", "nobody"];

pub(crate) struct Server {
    directory: TempDir,
    programs: PathBuf,
    user: Option<String>,
}

/// Where the programs of a server are: those of the newest version.
pub(crate) fn programs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("HOLDFAST_PEER_POSTGRES") {
        return Some(named.into());
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With further lines of configuration.
    pub(crate) fn start_with(configuration: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("holdfast-pg-")
            .tempdir()
            .unwrap();
        let server = Self {
            user: user(),
            programs: programs().expect("asked for before"),
            directory,
        };
        let path = server.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        if let Some(user) = &server.user {
            let (uid, gid) = ids(user);
            chown(path, Some(uid), Some(gid)).unwrap();
        }
        let data = server.cluster();
        server.run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "holdfast",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ],
        );
        // A kill loses nothing without syncs, a loss of power would; one socket, no network.
        let settings = format!(
            "fsync = off\nlisten_addresses = ''\nunix_socket_directories = '{}'\n\
             max_connections = 60\nshared_buffers = 32MB\n{configuration}\n",
            path.display()
        );
        let file = Path::new(&data).join("postgresql.conf");
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, before + &settings).unwrap();
        server.again();
        server
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn cluster(&self) -> String {
        self.path().join("data").display().to_string()
    }

    /// Starts it, after a stop too.
    pub(crate) fn again(&self) {
        let log = self.path().join("log").display().to_string();
        self.run(
            "pg_ctl",
            &["-D", &self.cluster(), "-l", &log, "-w", "start"],
        );
    }

    /// `fast` ends its sessions, `immediate` ends it like a crash.
    pub(crate) fn stop(&self, how: &str) {
        self.run("pg_ctl", &["-D", &self.cluster(), "-m", how, "-w", "stop"]);
    }

    /// A database that nobody has used.
    pub(crate) fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("d{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("create database {name}"));
        name
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "postgres://holdfast@/{database}?host={}",
            self.path().display()
        )
    }

    pub(crate) fn address(&self, database: &str) -> Address {
        Address::parse(&self.url(database), None).unwrap()
    }

    /// What a statement of the test itself answers, one line for each row.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        let socket = self.path().display().to_string();
        let arguments = [
            "-h",
            &socket,
            "-U",
            "holdfast",
            "-d",
            database,
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
        ];
        let output = self.run("psql", &arguments);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let program = self.programs.join(program);
        let mut command = match &self.user {
            None => Command::new(&program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                let (uid, gid) = ids(user);
                command
                    .args([format!("--reuid={uid}"), format!("--regid={gid}")])
                    .arg("--clear-groups")
                    .arg(&program);
                command
            }
        };
        // A server that is started keeps what it is given; it must not keep a pipe of ours open.
        let is_start = arguments.contains(&"start");
        let output = command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(if is_start {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stderr(if is_start {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{} {arguments:?}: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }
}

/// The processes of a server that is stopped in mid-air; they go on when it is dropped.
pub(crate) struct Frozen(Vec<Pid>);

impl Server {
    /// The first process before its children: it would make others in their place.
    pub(crate) fn freeze(&self) -> Frozen {
        let file = Path::new(&self.cluster()).join("postmaster.pid");
        let text = fs::read_to_string(file).unwrap();
        let first: i32 = text.lines().next().unwrap().parse().unwrap();
        let mut frozen = Frozen(Vec::new());
        frozen.stop(first);
        let children = format!("/proc/{first}/task/{first}/children");
        for child in fs::read_to_string(children).unwrap().split_whitespace() {
            frozen.stop(child.parse().unwrap());
        }
        frozen
    }
}

impl Frozen {
    fn stop(&mut self, process: i32) {
        let process = Pid::from_raw(process).unwrap();
        // One that ended by itself meanwhile answers nothing either.
        if kill_process(process, Signal::STOP).is_ok() {
            self.0.push(process);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for process in &self.0 {
            kill_process(*process, Signal::CONT).ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Stopped by a test already, it is no error.
        let data = self.cluster();
        if Path::new(&data).join("postmaster.pid").exists() {
            self.stop("immediate");
        }
    }
}

fn user() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let has = |user: &&str| {
        users
            .lines()
            .any(|line| line.starts_with(&format!("{user}:")))
    };
    USERS.into_iter().find(has).map(str::to_owned)
}

fn ids(user: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users
        .lines()
        .find(|line| line.starts_with(&format!("{user}:")))
        .unwrap();
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}
