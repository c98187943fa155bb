//! Chromium through chromedriver: the part of the WebDriver protocol that the tests need, which is
//! JSON over HTTP. Ended with the test, also when it panics.

use std::{
    fmt,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Peer;

/// Longer than any page takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a script may look at a page, and how long a question of half a second may take.
const SCRIPT_MS: u32 = 30_000;
const QUESTION_MS: u32 = 2_000;
/// Keys of the protocol that are no characters.
pub(crate) const ARROW_LEFT: &str = "\u{e012}";
pub(crate) const ARROW_RIGHT: &str = "\u{e014}";
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";
/// How the protocol names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One browser with a profile of its own.
pub(crate) struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    _profile: TempDir,
}

/// An element of the page that is shown.
#[derive(Clone, Debug)]
pub(crate) struct Element(String);

/// What a browser is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_dark: bool,
    pub(crate) has_script: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 900,
            is_dark: false,
            has_script: true,
        }
    }
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Browser")
    }
}

impl Browser {
    pub(crate) fn start(chromedriver: &Peer, look: Look) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new(chromedriver.path())
            .args(["--port=0", "--allowed-ips=127.0.0.1"])
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path())
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.by_ref().find_map(|line| {
            let (_, rest) = line
                .ok()?
                .split_once("started successfully on port ")
                .map(|(a, b)| (a.to_owned(), b.to_owned()))?;
            rest.trim_end_matches('.').parse::<u16>().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let mut browser = Self {
            driver,
            session: format!(
                "http://127.0.0.1:{}/session",
                port.expect("chromedriver tells its port")
            ),
            agent,
            _profile: profile,
        };
        let capabilities = capabilities(&browser, look);
        let begun = browser.send("", &json!({"capabilities": {"alwaysMatch": capabilities}}));
        let id = begun["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {begun}"));
        browser.session = format!("{}/{id}", browser.session);
        // --window-size counts the frame; this is the page itself.
        browser.cdp(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 500}),
        );
        browser.scheme(look.is_dark);
        browser.cdp(
            "Emulation.setScriptExecutionDisabled",
            &json!({"value": !look.has_script}),
        );
        browser
    }

    /// A command of the browser's own protocol.
    fn cdp(&self, command: &str, params: &Value) -> Value {
        self.send(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": params}),
        )
    }

    /// What the system prefers.
    pub(crate) fn scheme(&self, is_dark: bool) {
        let value = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}, {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.cdp("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Where files go that a page gives.
    pub(crate) fn downloads_to(&self, dir: &Path) {
        let params = json!({"behavior": "allow", "downloadPath": dir});
        self.cdp("Browser.setDownloadBehavior", &params);
    }

    pub(crate) fn size(&self, width: u32, height: u32) {
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}),
        );
    }

    /// Runs before any script of each page.
    pub(crate) fn before_each_page(&self, script: &str) {
        self.cdp(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({"source": script}),
        );
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Value> {
        let url = format!("{}{path}", self.session);
        let answer = match body {
            Some(body) => self
                .agent
                .post(&url)
                .content_type("application/json; charset=utf-8")
                .send(body.to_string()),
            None if method == "DELETE" => self.agent.delete(&url).call(),
            None => self.agent.get(&url).call(),
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let text = answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()
            .unwrap();
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        let value = value["value"].clone();
        if answer.status().is_success() {
            Ok(value)
        } else {
            Err(value)
        }
    }

    fn send(&self, path: &str, body: &Value) -> Value {
        self.call("POST", path, Some(body))
            .unwrap_or_else(|error| panic!("{path} {body}: {error:#}"))
    }

    fn get(&self, path: &str) -> Value {
        self.call("GET", path, None)
            .unwrap_or_else(|error| panic!("{path}: {error:#}"))
    }

    pub(crate) fn open(&self, url: &str) {
        self.send("/url", &json!({"url": url}));
    }

    pub(crate) fn url(&self) -> String {
        self.get("/url").as_str().unwrap().to_owned()
    }

    pub(crate) fn source(&self) -> String {
        self.get("/source").as_str().unwrap().to_owned()
    }

    /// The one element that a selector names.
    pub(crate) fn find(&self, selector: &str) -> Element {
        self.try_find(selector)
            .unwrap_or_else(|| panic!("no `{selector}` on {}\n{}", self.url(), self.text_of_page()))
    }

    pub(crate) fn try_find(&self, selector: &str) -> Option<Element> {
        let body = json!({"using": "css selector", "value": selector});
        let found = self.call("POST", "/element", Some(&body)).ok()?;
        Some(Element(found[ELEMENT].as_str()?.to_owned()))
    }

    /// A link or button by its words.
    pub(crate) fn named(&self, words: &str) -> Element {
        let path =
            format!("//*[self::a or self::button][contains(normalize-space(.), \"{words}\")]");
        let found = self.call(
            "POST",
            "/element",
            Some(&json!({"using": "xpath", "value": path})),
        );
        let found = found.unwrap_or_else(|_| {
            panic!(
                "no link or button `{words}` on {}\n{}",
                self.url(),
                self.text_of_page()
            )
        });
        Element(found[ELEMENT].as_str().unwrap().to_owned())
    }

    pub(crate) fn click(&self, element: &Element) {
        self.send(&format!("/element/{}/click", element.0), &json!({}));
    }

    pub(crate) fn type_into(&self, element: &Element, text: &str) {
        self.send(
            &format!("/element/{}/value", element.0),
            &json!({"text": text}),
        );
    }

    pub(crate) fn clear(&self, element: &Element) {
        self.send(&format!("/element/{}/clear", element.0), &json!({}));
    }

    /// Keys to whatever has the focus, one after the other.
    pub(crate) fn press(&self, keys: &str) {
        let steps: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key.to_string()}))
            })
            .collect();
        self.send(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": steps}]}),
        );
    }

    pub(crate) fn text(&self, element: &Element) -> String {
        self.get(&format!("/element/{}/text", element.0))
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn text_of_page(&self) -> String {
        self.try_find("body")
            .map(|body| self.text(&body))
            .unwrap_or_default()
    }

    /// The value that the body of a function returns in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.send("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Asks the page until the condition holds. Each time the page itself looks for a moment; a page that
    /// is left takes the question with it, and the next one is asked.
    pub(crate) fn until(&self, what: &str, condition: &str) {
        let script = format!(
            "const done = arguments[arguments.length - 1]; let looks = 10; \
             const holds = () => {{ try {{ return Boolean({condition}); }} catch (error) {{ return false; }} }}; \
             const look = () => {{ const now = holds(); looks -= 1; \
                 if (now || looks === 0) done(now); else setTimeout(look, 50); }}; look();"
        );
        let begun = Instant::now();
        let body = json!({"script": script, "args": []});
        let mut last = Value::Null;
        // A question that went with its page is given up soon.
        self.send("/timeouts", &json!({"script": QUESTION_MS}));
        while begun.elapsed() < PATIENCE {
            match self.call("POST", "/execute/async", Some(&body)) {
                Ok(Value::Bool(true)) => {
                    self.send("/timeouts", &json!({"script": SCRIPT_MS}));
                    return;
                }
                Ok(_) => last = "it does not hold".into(),
                Err(error) => last = error["error"].clone(),
            }
        }
        panic!(
            "{what} did not happen on {} ({last})\n{}",
            self.url(),
            self.text_of_page()
        );
    }

    pub(crate) fn delete_cookies(&self) {
        let gone = self.call("DELETE", "/cookie", None);
        gone.unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn cookies(&self) -> Value {
        self.get("/cookie")
    }

    /// What the browser itself complained of since it was last asked.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        let told = self.send("/se/log", &json!({"type": "browser"}));
        told.as_array().cloned().unwrap_or_default()
    }

    /// The page as a picture.
    pub(crate) fn picture(&self) -> Vec<u8> {
        let picture = self.get("/screenshot");
        BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }
}

fn capabilities(browser: &Browser, look: Look) -> Value {
    let profile = browser._profile.path().join("profile");
    let args = [
        "--headless=new".to_owned(),
        // Tests run as root in a container.
        "--no-sandbox".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--disable-gpu".to_owned(),
        "--no-first-run".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-sync".to_owned(),
        "--lang=en-US".to_owned(),
        "--force-color-profile=srgb".to_owned(),
        // Nothing of these tests leaves this machine.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1".to_owned(),
        format!("--window-size={},{}", look.width, look.height),
        format!("--user-data-dir={}", profile.display()),
    ];
    json!({
        "browserName": "chrome",
        "goog:chromeOptions": {
            "args": args,
        },
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": SCRIPT_MS, "pageLoad": 60_000, "implicit": 0},
    })
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; chromedriver alone would leave it behind.
        let ended = self.agent.delete(&self.session).call();
        drop(ended);
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
