//! A coordinator in etcd, by the JSON of its version 3 interface.
//!
//! Two keys, below PREFIX/CLUSTER/: `holder` lives as long as the lease of the node that made it, `epoch`
//! stays. A node makes `holder` only where there is none, and writes `epoch` only as long as its own
//! `holder` is there and never to less: so revisions of `holder` and epochs rise together.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use replica::machine::NodeId;
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use wal::Epoch;
use zeroize::Zeroizing;

use super::{Coordinator, Fault, Held, Known, Seen, Term, address::Address};

/// Tours of all endpoints that may wait in vain within the life of a lease: with all but one silent that one
/// answers before the lease is at its end.
const TOURS_A_LIFE: u32 = 2;
/// Endpoints that a request is spread over at least: with one or two there is time for more than two tours.
const ENDPOINTS_MIN: u32 = 3;
/// Before anything hangs on it: as long as a password may take that is hashed many times on a busy machine.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(10);
/// Answers are a key or two.
const ANSWER_LEN_MAX: u64 = 64 << 10;
/// As etcd numbers what a caller must not do, after gRPC.
const UNAUTHENTICATED: u64 = 16;

pub(crate) struct Etcd {
    agent: ureq::Agent,
    /// For each request to an endpoint.
    patience: Duration,
    address: Address,
    password: Option<Zeroizing<String>>,
    token: Option<Zeroizing<String>>,
    /// Of the endpoint that answered last; the others come after it.
    first: usize,
    me: NodeId,
    holder: String,
    epoch: String,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Etcd {
    pub(crate) fn new(
        address: Address,
        password: Option<Zeroizing<String>>,
        ca: Option<&[u8]>,
        cluster: u128,
        me: NodeId,
    ) -> Result<Self, String> {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = ca {
            let certificate = Certificate::from_pem(pem).map_err(|error| {
                format!("the file of the authority holds no certificate: {error}")
            })?;
            tls = tls.root_certs(RootCerts::new_with_certs(&[certificate]));
        }
        // No redirects and no proxy of the environment: either would carry the password elsewhere.
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls.build())
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let below = format!("{}/{cluster:032x}", address.prefix);
        Ok(Self {
            agent,
            patience: FIRST_ANSWER_MAX,
            password,
            token: None,
            first: 0,
            me,
            holder: encoded(&format!("{below}/holder")),
            epoch: encoded(&format!("{below}/epoch")),
            address,
        })
    }

    /// From here on no request takes more than its part of the life of a lease.
    pub(crate) fn hurry(&mut self) {
        self.patience = patience(self.address.ttl, self.address.endpoints.len());
    }

    /// Asks with who this is, if that was set; a token that etcd knows no more is asked for again, once.
    fn ask(&mut self, path: &str, body: &Value) -> Result<Value, Fault> {
        for _ in 0..2 {
            if self.token.is_none() && self.address.user.is_some() {
                self.token = Some(self.authenticate()?);
            }
            match self.tour(path, body)? {
                Said::Answer(answer) => return Ok(answer),
                Said::Error { code, .. } if code == UNAUTHENTICATED && self.token.is_some() => {
                    self.token = None;
                }
                Said::Error { text, .. } => return Err(Fault::Refused(text)),
            }
        }
        let text = "it does not know the token that it gave a moment ago".to_owned();
        Err(Fault::Refused(text))
    }

    fn authenticate(&mut self) -> Result<Zeroizing<String>, Fault> {
        let password = self.password.as_deref().map_or("", String::as_str);
        let body = json!({ "name": self.address.user, "password": password });
        match self.tour("/v3/auth/authenticate", &body)? {
            Said::Answer(answer) => answer["token"]
                .as_str()
                .map(|token| Zeroizing::new(token.to_owned()))
                .ok_or_else(|| not_understood("a token")),
            Said::Error { text, .. } => Err(Fault::Refused(text)),
        }
    }

    /// One endpoint after the other, until one answers.
    fn tour(&mut self, path: &str, body: &Value) -> Result<Said, Fault> {
        let count = self.address.endpoints.len();
        let mut silent = Vec::new();
        for at in (0..count).map(|step| (self.first + step) % count) {
            match self.post(&self.address.endpoints[at], path, body) {
                Ok(said) => {
                    self.first = at;
                    return Ok(said);
                }
                Err(why) => silent.push(format!("{}: {why}", self.address.endpoints[at])),
            }
        }
        Err(Fault::Unreachable(silent.join("; ")))
    }

    /// `Err`: another endpoint may know better.
    fn post(&self, endpoint: &str, path: &str, body: &Value) -> Result<Said, String> {
        let scheme = if self.address.is_encrypted {
            "https"
        } else {
            "http"
        };
        let mut request = self
            .agent
            .post(format!("{scheme}://{endpoint}{path}"))
            .config()
            .timeout_global(Some(self.patience))
            .build()
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", token.as_str());
        }
        let body = Zeroizing::new(body.to_string());
        let mut response = request
            .send(body.as_bytes())
            .map_err(|error| crate::alerts::explained(&error))?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(ANSWER_LEN_MAX)
            .read_to_string()
            .map_err(|error| crate::alerts::explained(&error))?;
        let answer: Value = serde_json::from_str(&text)
            .map_err(|_| format!("it answers {status}, and not as etcd does"))?;
        // Streams answer 200 and put what went wrong inside.
        let error = [&answer["error"]["message"], &answer["error"]]
            .into_iter()
            .find_map(Value::as_str);
        let Some(error) = error else {
            return match status {
                200 => Ok(Said::Answer(answer)),
                _ => Err(format!("it answers {status}")),
            };
        };
        let code = [&answer["code"], &answer["error"]["grpc_code"]]
            .into_iter()
            .find_map(Value::as_u64)
            .unwrap_or_default();
        // What etcd itself cannot do at the moment (no leader, too slow), another member may.
        match status {
            500.. => Err(error.to_owned()),
            _ => Ok(Said::Error {
                code,
                text: error.to_owned(),
            }),
        }
    }

    fn transaction(&mut self, compare: Value, success: Value) -> Result<Value, Fault> {
        self.ask(
            "/v3/kv/txn",
            &json!({ "compare": compare, "success": success }),
        )
    }

    /// `holder`, and `epoch` with the revision at which it was written.
    fn read(&mut self) -> Result<(Seen, u64), Fault> {
        let read = |key: &str| json!({ "requestRange": { "key": key } });
        let both = json!([read(&self.holder), read(&self.epoch)]);
        let answer = self.transaction(json!([]), both)?;
        let pair = |at: usize| &answer["responses"][at]["response_range"]["kvs"][0];
        let (holder, epoch) = (pair(0), pair(1));
        let mut seen = Seen {
            holder: None,
            known: None,
        };
        if !holder.is_null() {
            let value = decoded(holder)?;
            seen.holder = Some(Held {
                node: node(&value)?,
                revision: number(&holder["create_revision"]),
            });
        }
        if !epoch.is_null() {
            let value = decoded(epoch)?;
            let highest = value["epoch"].as_str().and_then(|text| text.parse().ok());
            seen.known = Some(Known {
                epoch: Epoch(highest.ok_or_else(|| not_understood("an epoch"))?),
                node: node(&value)?,
            });
        }
        Ok((seen, number(&epoch["mod_revision"])))
    }

    fn revoke(&mut self, lease: u64) -> Result<(), Fault> {
        self.ask("/v3/lease/revoke", &json!({ "ID": lease.to_string() }))
            .map(drop)
    }
}

fn patience(life: Duration, endpoints: usize) -> Duration {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    life / endpoints.max(ENDPOINTS_MIN).saturating_mul(TOURS_A_LIFE)
}

enum Said {
    Answer(Value),
    Error { code: u64, text: String },
}

impl Coordinator for Etcd {
    fn life(&self) -> Duration {
        self.address.ttl
    }

    fn look(&mut self) -> Result<Seen, Fault> {
        self.read().map(|(seen, _)| seen)
    }

    fn take(&mut self) -> Result<Option<Term>, Fault> {
        let body = json!({ "TTL": self.address.ttl.as_secs().to_string(), "ID": "0" });
        let granted = self.ask("/v3/lease/grant", &body)?;
        let (lease, seconds) = (number(&granted["ID"]), number(&granted["TTL"]));
        if lease == 0 || seconds == 0 {
            return Err(not_understood("a lease"));
        }
        let value = encoded(&json!({ "node": format!("{:032x}", self.me.0) }).to_string());
        let absent = json!([{ "key": self.holder, "target": "CREATE", "create_revision": "0" }]);
        let put = json!([{ "requestPut": {
            "key": self.holder, "value": value, "lease": lease.to_string(),
        } }]);
        let answer = self.transaction(absent, put)?;
        if answer["succeeded"] != true {
            self.revoke(lease)?;
            return Ok(None);
        }
        Ok(Some(Term {
            lease,
            revision: number(&answer["header"]["revision"]),
            life: Duration::from_secs(seconds),
        }))
    }

    fn renew(&mut self, term: &Term) -> Result<Option<Duration>, Fault> {
        let body = json!({ "ID": term.lease.to_string() });
        let answer = self.ask("/v3/lease/keepalive", &body)?;
        let seconds = number(&answer["result"]["TTL"]);
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    fn record(&mut self, term: &Term, epoch: Epoch) -> Result<bool, Fault> {
        let (seen, revision) = self.read()?;
        if let Some(known) = seen.known {
            if known.epoch > epoch || (known.epoch == epoch && known.node != self.me) {
                return Ok(false);
            }
            if known.epoch == epoch {
                return Ok(seen.is_held_under(term));
            }
        }
        let value = json!({
            "epoch": epoch.0.to_string(),
            "node": format!("{:032x}", self.me.0),
            "revision": term.revision.to_string(),
        });
        let unchanged = json!([
            { "key": self.holder, "target": "CREATE", "create_revision": term.revision.to_string() },
            { "key": self.epoch, "target": "MOD", "mod_revision": revision.to_string() },
        ]);
        let put =
            json!([{ "requestPut": { "key": self.epoch, "value": encoded(&value.to_string()) } }]);
        if self.transaction(unchanged, put)?["succeeded"] == true {
            return Ok(true);
        }
        // It may have been done at an endpoint whose answer was lost, and asked for again at the next one.
        let (seen, _) = self.read()?;
        let is_ours = seen
            .known
            .is_some_and(|known| (known.epoch, known.node) == (epoch, self.me));
        Ok(is_ours && seen.is_held_under(term))
    }

    fn release(&mut self, term: &Term) -> Result<(), Fault> {
        self.revoke(term.lease)
    }
}

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn decoded(pair: &Value) -> Result<Value, Fault> {
    let bytes = pair["value"]
        .as_str()
        .and_then(|text| BASE64_STANDARD.decode(text).ok());
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| not_understood("a value"))
}

fn node(value: &Value) -> Result<NodeId, Fault> {
    let text = value["node"].as_str();
    text.and_then(|text| u128::from_str_radix(text, 16).ok())
        .map(NodeId)
        .ok_or_else(|| not_understood("a node"))
}

/// etcd writes numbers as text, and leaves out those that are 0.
fn number(value: &Value) -> u64 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .or_else(|| value.as_u64())
        .unwrap_or_default()
}

fn not_understood(what: &str) -> Fault {
    Fault::Refused(format!(
        "what it keeps for this cluster is not understood: no {what}; another program may use these keys"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six of nine endpoints are silent, and the seventh answers: the lease was over by then.
    #[test]
    fn an_endpoint_that_answers_is_reached_within_the_life_of_a_lease() {
        let life = Duration::from_secs(2);
        for endpoints in 1..=9 {
            let tour = patience(life, endpoints) * u32::try_from(endpoints).unwrap();
            assert!(tour <= life / TOURS_A_LIFE, "{endpoints}");
        }
        assert_eq!(patience(life, 1), life / 6);
    }
}
