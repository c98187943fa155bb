//! Running the binary in a directory of its own.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_holdfast");

/// A data directory and everything around it, gone at the end of the test.
pub(crate) struct Sandbox {
    dir: TempDir,
}

/// What a run gave.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file beside the data directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it lies in the sandbox")).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env_clear()
            .env("HOLDFAST_DATA_DIR", self.data_dir())
            .env("HOME", self.dir.path())
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Run {
        Run::of(self.command(args).output().expect("the binary starts"))
    }

    /// Runs with `--output json` and reads what it prints.
    pub(crate) fn json<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> (i32, Value) {
        let mut command = self.command(args);
        let run = Run::of(
            command
                .args(["--output", "json"])
                .output()
                .expect("the binary starts"),
        );
        let value = serde_json::from_str(&run.stdout)
            .unwrap_or_else(|error| panic!("{error} in {}\n{}", run.stdout, run.stderr));
        (run.code, value)
    }

    /// The binary as a user without privileges, with an empty environment: `nobody` when the test
    /// runs as root, else whoever runs it. `variables` are all of its environment.
    pub(crate) fn unprivileged(&self, variables: &[(&str, &Path)]) -> Command {
        if !rustix::process::geteuid().is_root() {
            let mut command = Command::new(BINARY);
            command.env_clear().envs(variables.iter().copied());
            command.stdin(Stdio::null());
            return command;
        }
        let binary = self.binary_for_all();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["env", "-i", "PATH="])
            .args(
                variables
                    .iter()
                    .map(|(name, value)| format!("{name}={}", value.display())),
            )
            .arg(binary)
            .stdin(Stdio::null());
        command
    }

    /// A copy of the binary that every user may run: the build directory may be root's alone. Made by another
    /// process, because a child that another test starts meanwhile has a copy of every file that is open here,
    /// and a program that somebody has open to write does not run.
    pub(crate) fn binary_for_all(&self) -> PathBuf {
        std::fs::set_permissions(self.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let binary = self.path("holdfast");
        let copied = Command::new("cp").arg(BINARY).arg(&binary).status();
        assert!(copied.unwrap().success());
        binary
    }

    /// Starts without waiting; standard output and error are piped.
    pub(crate) fn start<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Child {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    }
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Exit code 2, nothing printed as a result, an error that names `object` and a next step.
    pub(crate) fn is_refused_naming(&self, object: &str) {
        assert_eq!(
            self.code, 2,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        assert!(
            self.stderr.contains(object),
            "`{object}` is not named in: {}",
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }

    pub(crate) fn tells_next_step(&self) {
        assert!(
            self.stderr.contains("next: ") || self.stderr.contains("--help"),
            "no next step in: {}",
            self.stderr
        );
    }
}

/// A directory of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}
