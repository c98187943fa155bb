//! A shell of this machine as a host.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use crate::{
    capture::{Exchange, command},
    failure::{Failure, Reason},
};

/// What a server would start for us, without the server.
pub(super) struct Shell {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Shell {
    /// `login` interprets the command, as a login shell does.
    #[allow(clippy::disallowed_methods, reason = "the host of the test")]
    pub(super) fn start(login: &[&str]) -> Self {
        let mut child = std::process::Command::new(login[0])
            .args(&login[1..])
            .arg("-c")
            .arg(command())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().unwrap(),
            child,
        }
    }
}

impl Exchange for Shell {
    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let stdin = self.stdin.as_mut().unwrap();
        stdin
            .write_all(bytes)
            .map_err(|error| Failure::new(Reason::HostUnreachable, error.to_string()))
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut bytes = vec![0; 64 << 10];
        let count = self.stdout.read(&mut bytes).unwrap();
        bytes.truncate(count);
        Ok((count > 0).then_some(bytes))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.child.wait().ok();
    }
}
