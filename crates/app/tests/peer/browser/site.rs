//! A running `holdfast up` with a history that a test made, and tokens for it.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::Value;

use super::driver::Browser;
use crate::{facts, holdfast::Sandbox, serving::PATIENCE};

/// The host that is replayed.
pub(crate) const HOST: &str = "web-1";

/// A site that is watched, ended with the test.
pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    pub(crate) address: String,
    child: Child,
}

impl Site {
    /// With a rule that first passed and then failed on [`HOST`].
    pub(crate) fn with_history() -> Self {
        let sandbox = Sandbox::new();
        replay(&sandbox, HOST, "2");
        replay(&sandbox, HOST, "0");
        Self::start(sandbox)
    }

    pub(crate) fn start(sandbox: Sandbox) -> Self {
        let mut child = sandbox
            .command(["up", "--no-walk"])
            .env("HOLDFAST_SERVER_LISTEN", "127.0.0.1:0")
            .env("HOLDFAST_EVENTS_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (sender, told) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        let mut seen = Vec::new();
        let address = loop {
            let line = told
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|error| panic!("no console: {error}: {seen:#?}"));
            if let Some(at) = line
                .find("http://127.0.0.1:")
                .filter(|_| line.contains("console"))
            {
                let end =
                    line[at + 7..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
                break line[at..end.map_or(line.len(), |end| at + 7 + end)].to_owned();
            }
            seen.push(line);
        };
        thread::spawn(move || told.iter().for_each(drop));
        Self {
            sandbox,
            address,
            child,
        }
    }

    /// Facts of [`HOST`] are brought by hand while the site is watched.
    pub(crate) fn replay(&self, kptr: &str) {
        replay(&self.sandbox, HOST, kptr);
    }

    pub(crate) fn admin_token(&self) -> String {
        let path = self.sandbox.data_dir().join("keys/admin.token");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// Signs in and waits for the page behind the door.
    pub(crate) fn sign_in(&self, browser: &Browser, token: &str) {
        browser.open(&self.page("/sign-in"));
        browser.type_into(&browser.find("#token"), token);
        browser.click(&browser.find("form button"));
        browser.until(
            "signing in",
            "document.querySelector('header.head') !== null",
        );
    }

    /// A token that the signed-in administrator makes in the console.
    pub(crate) fn make_token(&self, browser: &Browser, name: &str, role: &str) -> String {
        browser.open(&self.page("/admin"));
        browser.type_into(&browser.find("#token-name"), name);
        browser.type_into(&browser.find("#role"), role);
        browser.click(&browser.named("Make token"));
        browser.until("the token", "document.querySelector('.secret') !== null");
        browser.text(&browser.find(".secret"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn replay(sandbox: &Sandbox, host: &str, kptr: &str) {
    replay_bundle(sandbox, &facts::bundle(host, kptr));
}

pub(crate) fn replay_bundle(sandbox: &Sandbox, bundle: &Value) {
    let file: PathBuf = sandbox.file("facts.json", bundle.to_string());
    let run = sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    assert!(
        run.code == 0 || run.code == 1 || run.code == 3,
        "{}: {}",
        run.code,
        run.stderr
    );
}
