//! Every operation of the document, driven by inputs made from the document and by hostile ones: no
//! answer is a fault of ours (SVC-5).

use proptest_free::Dice;
use serde_json::{Map, json};

use super::*;
use crate::server::openapi;

/// Requests of each operation. With forty operations some four thousand in all.
const ROUNDS: u64 = 90;

/// What people and programs send to find holes: SQL, headers, paths, templates, logs, terminals.
const HOSTILE: [&str; 24] = [
    "' OR '1'='1' --",
    "\"; DROP TABLE hosts; --",
    "x\r\nSet-Cookie: a=b",
    "x\nINFO admin signed in",
    "../../../../etc/passwd",
    "..%2f..%2fkeys%2fdata.key",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "<script>alert(1)</script>",
    "\u{1b}[2J\u{1b}]0;pwned\u{7}",
    "\0",
    "%00",
    "%s%s%s%n",
    "${jndi:ldap://x/}",
    "\u{202e}evil",
    "a\u{300}\u{300}\u{300}",
    "💥",
    "-1",
    "99999999999999999999999999",
    "1e309",
    "NaN",
    "null",
    "true",
    "",
    " ",
];

/// A small generator of its own: the seed is told, and the same seed sends the same requests.
mod proptest_free {
    pub(super) struct Dice(pub(super) u64);

    impl Dice {
        /// SplitMix64.
        pub(super) fn roll(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        pub(super) fn below(&mut self, end: usize) -> usize {
            usize::try_from(self.roll() % end as u64).unwrap()
        }

        pub(super) fn one_in(&mut self, many: u64) -> bool {
            self.roll().is_multiple_of(many)
        }

        pub(super) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
            &all[self.below(all.len())]
        }
    }
}

fn text(dice: &mut Dice) -> String {
    match dice.below(6) {
        0 => "x".repeat(dice.below(3000)),
        1 => "one".to_owned(),
        2 => "2026-01-01T00:00:00Z".to_owned(),
        _ => (*dice.of(&HOSTILE)).to_owned(),
    }
}

/// A value of a schema, or something else.
fn value(dice: &mut Dice, document: &Value, schema: &Value, depth: usize) -> Value {
    if depth > 6 || dice.one_in(12) {
        return match dice.below(6) {
            0 => Value::Null,
            1 => json!(dice.roll()),
            2 => json!([]),
            3 => json!({ "x": "y" }),
            4 => json!(-1.5e300),
            _ => json!(text(dice)),
        };
    }
    if let Some(name) = schema["$ref"].as_str() {
        let found = document.pointer(name.trim_start_matches('#')).unwrap();
        return value(dice, document, found, depth + 1);
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[several].as_array() {
            let one = dice.of(all).clone();
            return value(dice, document, &one, depth + 1);
        }
    }
    if let Some(all) = schema["enum"].as_array() {
        return dice.of(all).clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => dice.of(kinds).as_str().unwrap_or("null").to_owned(),
        kind => kind.as_str().unwrap_or("string").to_owned(),
    };
    match kind.as_str() {
        "object" => {
            let mut made = Map::new();
            for (name, of) in schema["properties"].as_object().into_iter().flatten() {
                if !dice.one_in(5) {
                    made.insert(name.clone(), value(dice, document, of, depth + 1));
                }
            }
            if dice.one_in(15) {
                made.insert(text(dice), Value::Null);
            }
            Value::Object(made)
        }
        "array" => {
            let of = schema["items"].clone();
            let len = dice.below(4);
            (0..len)
                .map(|_| value(dice, document, &of, depth + 1))
                .collect()
        }
        "integer" => json!(dice.roll() >> dice.below(64)),
        "number" => json!(0.5),
        "boolean" => json!(dice.one_in(2)),
        "null" => Value::Null,
        _ => json!(text(dice)),
    }
}

/// As browsers and clients write it, or with a byte left as it is.
fn encoded(dice: &mut Dice, text: &str) -> String {
    let mut written = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || (byte.is_ascii_graphic() && dice.one_in(9));
        match plain && !b"?#\"<>\\^`{|}".contains(&byte) {
            true => written.push(char::from(byte)),
            false => written.push_str(&format!("%{byte:02X}")),
        }
    }
    written
}

fn request(dice: &mut Dice, document: &Value, path: &str, method: &str, operation: &Value) -> Sent {
    let mut target = path.to_owned();
    let mut query = Vec::new();
    let mut headers = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let made = match dice.one_in(3) {
            true => match value(dice, document, &parameter["schema"], 0) {
                Value::String(text) => text,
                other => other.to_string(),
            },
            false => text(dice),
        };
        match parameter["in"].as_str().unwrap() {
            "path" => {
                let made = encoded(dice, &made);
                target = target.replace(&format!("{{{name}}}"), &made);
            }
            "query" if !dice.one_in(3) => {
                query.push(format!("{name}={}", encoded(dice, &made)));
            }
            "header" if dice.one_in(3) => {
                // A line break would be another header already on the way out of this test.
                let plain: String = made.chars().filter(|c| !c.is_control()).collect();
                headers.push((name.to_owned(), plain));
            }
            _ => {}
        }
    }
    if !query.is_empty() {
        target = format!("{target}?{}", query.join("&"));
    }
    let mut sent = Sent::new(method, &target);
    for (name, value) in headers {
        sent = sent.header(&name, &value);
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !schema.is_null() {
        let body = value(dice, document, schema, 0);
        sent = match dice.below(12) {
            0 => sent.body("application/json", b"{\"a\":"),
            1 => sent.body("application/json", &[0xff, 0xfe, 0x00]),
            2 => sent.body("text/plain", body.to_string().as_bytes()),
            3 => sent.body("application/json", "[".repeat(5000).as_bytes()),
            _ => sent.json(&body),
        };
    }
    sent
}

/// Proves: SVC-5
#[test]
fn no_input_made_from_the_document_or_by_the_hostile_is_a_fault_of_ours() {
    let place = Place::new();
    place
        .tell(Role::Operator, "POST", "/api/v1/hosts", &ssh_host("one"))
        .must_be(201);
    changes::record(&place.store, "one", "r", scan::judge::Outcome::Fail);
    let document: Value = serde_json::from_str(&openapi::document()).unwrap();
    let mut statuses = BTreeMap::<u16, u64>::new();
    let mut number = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["operationId"] == "followChanges" {
                continue;
            }
            for _ in 0..ROUNDS {
                number += 1;
                let mut dice = Dice(number);
                let method = method.to_uppercase();
                let sent = request(&mut dice, &document, path, &method, operation);
                // The token that may do everything may also revoke itself; it is not named so here.
                let heard = place.send(&sent.clone().token(place.of(Role::Admin)));
                assert!(heard.status < 500, "seed {number}: {sent:?}: {heard:?}");
                if heard.status >= 400 && !heard.body.is_empty() {
                    let code = heard.code();
                    assert!(!code.is_empty(), "seed {number}: {sent:?}");
                }
                assert_eq!(heard.header("set-cookie"), None, "seed {number}: {sent:?}");
                *statuses.entry(heard.status).or_default() += 1;
            }
        }
    }
    assert!(statuses[&200] > 500, "{statuses:?}");
    assert!(statuses[&422] > 500, "{statuses:?}");
}
