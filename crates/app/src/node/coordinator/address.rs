//! Where a coordinator is: `etcd://HOST:PORT[,HOST:PORT…][/PREFIX][?user=NAME&ttl=2s]`, or `etcds` for TLS.
//!
//! No secret is ever in it: a password comes from a file.

use std::{fmt, time::Duration};

/// etcd grants no shorter one as it is usually set, and below it a short pause of a machine is a failover.
const TTL_MIN: Duration = Duration::from_secs(2);
/// Nobody writes for so long when the holder dies. By eye.
const TTL_MAX: Duration = Duration::from_secs(60);
const TTL_DEFAULT: Duration = Duration::from_secs(5);
/// etcd is run as three or five; each of them may be tried within one life of a lease.
const ENDPOINTS_MAX: usize = 9;
const PREFIX_DEFAULT: &str = "holdfast";
const PREFIX_LEN_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// HOST:PORT, tried in this order.
    pub(super) endpoints: Vec<String>,
    pub(super) is_encrypted: bool,
    /// Before every key, without a slash at its end.
    pub(super) prefix: String,
    pub(super) user: Option<String>,
    pub(super) ttl: Duration,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (is_encrypted, rest) =
            match (text.strip_prefix("etcd://"), text.strip_prefix("etcds://")) {
                (Some(rest), _) => (false, rest),
                (None, Some(rest)) => (true, rest),
                (None, None) => {
                    return Err("it begins with neither etcd:// nor etcds://".to_owned());
                }
            };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, prefix) = place.split_once('/').unwrap_or((place, ""));
        // What stands there is not repeated: it may be a password.
        if hosts.contains('@') {
            return Err("a name and a password do not belong before the host; write ?user=NAME, and the password into a file".to_owned());
        }
        let endpoints: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(format!("it names more than {ENDPOINTS_MAX} hosts"));
        }
        if let Some(bad) = endpoints.iter().find(|endpoint| !is_endpoint(endpoint)) {
            return Err(format!("`{bad}` is not HOST:PORT"));
        }
        let mut address = Self {
            endpoints,
            is_encrypted,
            prefix: prefix_of(prefix)?,
            user: None,
            ttl: TTL_DEFAULT,
        };
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            address.set(setting)?;
        }
        Ok(address)
    }

    fn set(&mut self, setting: &str) -> Result<(), String> {
        match setting.split_once('=') {
            Some(("user", name)) if !name.is_empty() => {
                let decoded = percent_encoding::percent_decode_str(name).decode_utf8();
                let name = decoded.map_err(|_| "the user's name is not UTF-8".to_owned())?;
                self.user = Some(name.into_owned());
                Ok(())
            }
            Some(("ttl", text)) => {
                let seconds = text.strip_suffix('s').unwrap_or(text).parse().ok();
                let ttl = seconds.map(Duration::from_secs);
                let bounds = TTL_MIN..=TTL_MAX;
                self.ttl = ttl.filter(|ttl| bounds.contains(ttl)).ok_or_else(|| {
                    let (least, most) = (TTL_MIN.as_secs(), TTL_MAX.as_secs());
                    format!("`{text}` is no life of a lease: write {least}s to {most}s")
                })?;
                Ok(())
            }
            // Its value is not repeated: it may be a password.
            other => {
                let name = other.map_or(setting, |(name, _)| name);
                Err(format!(
                    "it has no setting `{name}`; there are user and ttl"
                ))
            }
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let uri = format!("http://{text}/").parse::<ureq::http::Uri>();
    let authority = uri.ok().and_then(|uri| uri.authority().cloned());
    authority.is_some_and(|authority| {
        authority.as_str() == text && !authority.host().is_empty() && authority.port().is_some()
    })
}

fn prefix_of(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if prefix.len() > PREFIX_LEN_MAX || !prefix.chars().all(is_plain) {
        return Err(format!(
            "`{text}` is no prefix of keys: write letters, digits, - _ . and /, at most {PREFIX_LEN_MAX}"
        ));
    }
    match prefix {
        "" => Ok(PREFIX_DEFAULT.to_owned()),
        prefix => Ok(prefix.to_owned()),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "etcds" } else { "etcd" };
        write!(
            f,
            "{scheme}://{}/{}?",
            self.endpoints.join(","),
            self.prefix
        )?;
        if let Some(user) = &self.user {
            let user =
                percent_encoding::utf8_percent_encode(user, percent_encoding::NON_ALPHANUMERIC);
            write!(f, "user={user}&")?;
        }
        write!(f, "ttl={}s", self.ttl.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_shown() {
        for (text, shown) in [
            ("etcd://a:2379", "etcd://a:2379/holdfast?ttl=5s"),
            (
                "etcds://a:1,10.0.0.2:2,[::1]:3/site/x/?user=b%20c&ttl=2s",
                "etcds://a:1,10.0.0.2:2,[::1]:3/site/x?user=b%20c&ttl=2s",
            ),
            ("etcd://a:1/?ttl=60", "etcd://a:1/holdfast?ttl=60s"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(Address::parse(shown).unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_what_is_wrong_and_tells_no_secret() {
        for (text, said) in [
            ("http://a:1", "neither etcd:// nor etcds://"),
            ("etcd://", "is not HOST:PORT"),
            ("etcd://a", "is not HOST:PORT"),
            ("etcd://a:1,,b:1", "is not HOST:PORT"),
            ("etcd://a:99999", "is not HOST:PORT"),
            (
                "etcd://a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9,a:0",
                "more than 9",
            ),
            ("etcd://root:sesame@a:1", "into a file"),
            ("etcd://a:1?password=sesame", "no setting `password`"),
            ("etcd://a:1?ttl=1s", "2s to 60s"),
            ("etcd://a:1?ttl=61s", "2s to 60s"),
            ("etcd://a:1/a b", "no prefix of keys"),
        ] {
            let refused = Address::parse(text).unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
            assert!(!refused.contains("sesame"), "{refused}");
        }
    }
}
