//! Alerts of a running `holdfast up`, from the scan to the receiver.

use std::process::Child;

use super::*;

/// A running `up`, ended with the test.
struct Up(Child);

impl Up {
    fn start(sandbox: &Sandbox) -> Self {
        let child = sandbox
            .command(["up", "--no-walk", "--quiet"])
            .env("HOLDFAST_EVENTS_LISTEN", "127.0.0.1:0")
            .env("HOLDFAST_SERVER_LISTEN", "127.0.0.1:0")
            .env("HOLDFAST_CONFIG", sandbox.path("holdfast.toml"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary starts");
        Self(child)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Of what these facts tell, one rule is a high one: that addresses are randomized.
fn scan(sandbox: &Sandbox, is_mended: bool) {
    let mut facts = bundle("press-3", "2");
    if is_mended {
        let name = "kernel.randomize_va_space";
        facts["facts"]["sysctl"]["running"][name] = json!("2");
        facts["facts"]["sysctl"]["persistent"][name] =
            json!({ "value": "2", "file": "/etc/sysctl.d/a.conf" });
    }
    let file = sandbox.file("facts.json", facts.to_string());
    let run = sandbox.run(["scan".as_ref(), "--replay".as_ref(), file.as_os_str()]);
    assert!(run.code < 2, "{}", run.stderr);
}

/// Something is wrong and somebody is told; it is acknowledged; it is mended, and that is told too.
/// Proves: LED-12
#[test]
fn what_is_wrong_on_a_host_is_told_and_so_is_its_mending() {
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec();
    // The first attempt fails: the notice is tried again, under the same id.
    let oops = b"HTTP/1.1 503 Later\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n".to_vec();
    let (address, sink) = http_sink(vec![oops, ok.clone(), ok], None);
    let sandbox = with_receiver(&format!(
        "kind = \"webhook\"\nurl = \"http://{address}/\"\nsecret = \"SECRET\"\nhosts = [\"press-3\"]\nkinds = [\"findings_baseline\"]"
    ));
    scan(&sandbox, false);
    let up = Up::start(&sandbox);
    let begun = std::time::Instant::now();
    let alert = loop {
        let (_, listed) = sandbox.json([
            "alert",
            "list",
            "--host",
            "press-3",
            "--kind",
            "findings_baseline",
        ]);
        schema::check("alerts", &listed);
        if let Some(alert) = listed.as_array().unwrap().first() {
            break alert.clone();
        }
        assert!(begun.elapsed() < peers::PATIENCE, "no alert was raised");
    };
    assert_eq!(alert["state"], "open");
    let id = alert["id"].to_string();
    let acknowledged = sandbox.run(["alert", "acknowledge", &id, "--reason", "on it"]);
    assert_eq!(acknowledged.code, 0, "{}", acknowledged.stderr);
    let (_, shown) = sandbox.json(["alert", "show", &id]);
    assert_eq!(shown["state"], "acknowledged");
    assert_eq!(shown["acknowledged"]["reason"], "on it");
    scan(&sandbox, true);
    let requests = sink.join().unwrap();
    drop(up);
    let documents: Vec<Value> = requests
        .iter()
        .map(|request| serde_json::from_slice(&request.body).unwrap())
        .collect();
    for document in &documents {
        schema::check("alert-notice", document);
        assert_eq!(document["host"]["name"], "press-3");
    }
    assert_eq!(documents[0], documents[1], "the same notice, tried again");
    let events: Vec<&Value> = documents
        .iter()
        .map(|it| &it["events"][0]["event"])
        .collect();
    assert_eq!(
        events,
        [&json!("opened"), &json!("opened"), &json!("resolved")]
    );
    let (_, audit) = sandbox.json(["audit", "--action", "alert"]);
    let text = audit.to_string();
    for action in ["alert.opened", "alert.acknowledged", "alert.resolved"] {
        assert!(text.contains(action), "{text}");
    }
}

/// A machine that cannot sign tells of it for as long as that is so.
/// Proves: LED-12
#[test]
fn a_key_of_the_ledger_that_is_gone_is_told_of_until_it_is_back() {
    let sandbox = Sandbox::new();
    sandbox.file("holdfast.toml", "");
    let sealed = sandbox.run(["token", "add", "t"]);
    assert_eq!(sealed.code, 0, "{}", sealed.stderr);
    let sealed = sandbox.run(["ledger", "seal"]);
    assert_eq!(sealed.code, 0, "{}", sealed.stderr);
    let key = sandbox.data_dir().join("keys/ledger.key");
    let aside = sandbox.path("ledger.key");
    std::fs::rename(&key, &aside).unwrap();
    let up = Up::start(&sandbox);
    wait_for(&sandbox, "open");
    std::fs::rename(&aside, &key).unwrap();
    wait_for(&sandbox, "resolved");
    drop(up);
}

fn wait_for(sandbox: &Sandbox, state: &str) {
    let begun = std::time::Instant::now();
    loop {
        let (_, alerts) = sandbox.json(["alert", "list", "--all"]);
        let mut listed = alerts.as_array().unwrap().iter();
        let found = listed.find(|alert| alert["kind"] == "seal_failing");
        if found.is_some_and(|alert| alert["state"] == state) {
            return;
        }
        assert!(begun.elapsed() < peers::PATIENCE, "never {state}: {alerts}");
    }
}
