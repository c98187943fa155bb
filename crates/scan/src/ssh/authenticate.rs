//! Saying who we are, with each method at most once.
//!
//! What the host gets to see, in this order: the user, the public half of the key, a signature, and the
//! password only when the key was not enough and the host asks for one. A password is sent at most once,
//! by `password` or else by `keyboard-interactive`: modules such as faillock count.
//!
//! What the library keeps: the private key never gets there, signatures are made here and the key is
//! wiped when the attempt is over. A password has to be handed over: the library wipes its copy with the
//! host's answer, but the packet that carried it is encrypted in place in a buffer which is overwritten,
//! not wiped, and is freed with the connection; an answer to `keyboard-interactive` is freed unwiped.

use std::sync::Mutex;

use russh::{
    MethodKind, MethodSet, SendError, Signer,
    client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Interactive},
    keys::{
        HashAlg, PrivateKey,
        agent::AgentIdentity,
        decode_secret_key,
        signature::Signer as _,
        ssh_encoding::Encode as _,
        ssh_key::{self, Signature, private::KeypairData},
    },
};
use zeroize::Zeroizing;

use super::{
    algorithms,
    handshake::{Said, Watch},
};
use crate::{
    credential::{Secret, Sudo},
    failure::{Failure, Reason},
};

/// Questions of `keyboard-interactive` that ask nothing, before we stop answering. PAM sends one or two.
const EMPTY_QUESTIONS_MAX: u32 = 4;

pub(super) async fn authenticate(
    handle: &mut Handle<Watch>,
    secret: Secret,
    what: &str,
    said: &Mutex<Said>,
) -> Result<(Sudo, Option<Zeroizing<String>>), Failure> {
    let sudo_password = secret.sudo_answer().cloned();
    let Secret {
        user,
        private_key,
        passphrase,
        password,
        sudo,
        ..
    } = secret;
    let mut attempts = Attempts {
        handle,
        user: &user,
        what,
        said,
        tried: Vec::new(),
        offered: None,
    };
    let is_in = match private_key {
        Some(pem) => attempts.key(&pem, passphrase.as_deref()).await?,
        None => false,
    };
    let is_in = match password {
        Some(password) if !is_in => attempts.password(password).await?,
        _ => is_in,
    };
    if is_in {
        return Ok((sudo, sudo_password));
    }
    Err(attempts.refused())
}

struct Attempts<'a> {
    handle: &'a mut Handle<Watch>,
    user: &'a str,
    what: &'a str,
    said: &'a Mutex<Said>,
    tried: Vec<&'static str>,
    /// What the host would still take, once it said so.
    offered: Option<MethodSet>,
}

impl Attempts<'_> {
    async fn key(
        &mut self,
        pem: &Zeroizing<String>,
        passphrase: Option<&String>,
    ) -> Result<bool, Failure> {
        let key = read_key(pem, passphrase.map(String::as_str)).map_err(|why| {
            Failure::new(
                Reason::CredentialDecryptionFailed,
                format!("{}: {why}", self.what),
            )
        })?;
        if let Some(weakness) = algorithms::weakness(key.public_key()) {
            return Err(self.failed(&format!("the credential holds {weakness}")));
        }
        let hash = match key.algorithm() {
            ssh_key::Algorithm::Rsa { .. } => Some(self.rsa_hash().await?),
            _ => None,
        };
        self.tried.push("publickey");
        let public = key.public_key().clone();
        let mut signer = KeySigner(key);
        let result = self
            .handle
            .authenticate_publickey_with(self.user, public, hash, &mut signer)
            .await;
        drop(signer);
        match result {
            Ok(result) => self.outcome(result),
            Err(SignFault::Ended) => Err(self.ended()),
            Err(SignFault::Key(error)) => Err(self.failed(&format!("signing: {error}"))),
        }
    }

    /// Servers say which signatures they take; the old ones that say nothing know both.
    async fn rsa_hash(&mut self) -> Result<HashAlg, Failure> {
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Ok(hash),
            Ok(None) => Ok(HashAlg::Sha512),
            Ok(Some(None)) => {
                Err(self.failed("the host takes signatures of an RSA key only with SHA-1"))
            }
            Err(_) => Err(self.ended()),
        }
    }

    async fn password(&mut self, password: Zeroizing<String>) -> Result<bool, Failure> {
        if self.offered.is_none() {
            // Asks what there is, so that the password is not sent by a method which cannot work.
            let result = self.handle.authenticate_none(self.user).await;
            let result = result.map_err(|_| self.ended())?;
            if self.outcome(result)? {
                return Ok(true);
            }
        }
        let offered = self.offered.as_deref().unwrap_or_default();
        if offered.contains(&MethodKind::Password) {
            self.tried.push("password");
            let result = self
                .handle
                .authenticate_password(self.user, password.as_str())
                .await;
            let result = result.map_err(|_| self.ended())?;
            return self.outcome(result);
        }
        if offered.contains(&MethodKind::KeyboardInteractive) {
            self.tried.push("keyboard-interactive");
            return self.interactive(password).await;
        }
        Ok(false)
    }

    /// Answers one question that hides what is typed, and no other.
    async fn interactive(&mut self, password: Zeroizing<String>) -> Result<bool, Failure> {
        let mut password = Some(password);
        let mut empty = 0;
        let mut answer = self
            .handle
            .authenticate_keyboard_interactive_start(self.user, None)
            .await;
        loop {
            let prompts = match answer.map_err(|_| self.ended())? {
                Interactive::Success => return Ok(true),
                Interactive::Failure {
                    remaining_methods, ..
                } => {
                    self.offered = Some(remaining_methods);
                    return Ok(false);
                }
                Interactive::InfoRequest { prompts, .. } => prompts,
            };
            let answers = match &prompts[..] {
                [] if empty < EMPTY_QUESTIONS_MAX => {
                    empty += 1;
                    Vec::new()
                }
                [prompt] if !prompt.echo => match password.take() {
                    Some(password) => vec![password.as_str().to_owned()],
                    None => return Err(self.failed("the host asks for a second secret")),
                },
                _ => return Err(self.failed("the host asks for more than a password")),
            };
            answer = self
                .handle
                .authenticate_keyboard_interactive_respond(answers)
                .await;
        }
    }

    fn outcome(&mut self, result: AuthResult) -> Result<bool, Failure> {
        match result {
            AuthResult::Success => Ok(true),
            AuthResult::Failure {
                remaining_methods, ..
            } => {
                self.offered = Some(remaining_methods);
                Ok(false)
            }
        }
    }

    fn refused(&self) -> Failure {
        if let Some(end) = Said::end(self.said)
            && Said::farewell(self.said).is_none()
            && self.tried.is_empty()
        {
            let detail = format!("{}: the connection ended: {end}", self.what);
            return Failure::new(Reason::HostUnreachable, detail);
        }
        let tried = match &self.tried[..] {
            [] => "nothing the credential holds was asked for".to_owned(),
            tried => format!("refused {}", tried.join(" and ")),
        };
        let offered = self.offered.as_deref().unwrap_or_default();
        let offered: Vec<&str> = offered.iter().map(<&str>::from).collect();
        let would = match &offered[..] {
            [] => String::new(),
            offered => format!("; the host would take {}", offered.join(", ")),
        };
        self.failed(&format!("{tried}{would}"))
    }

    /// The host, or the link, ended the connection.
    fn ended(&self) -> Failure {
        match (Said::farewell(self.said), Said::end(self.said)) {
            (Some(words), _) => self.failed(&format!("the host ended the connection: {words}")),
            (None, end) => {
                let end = end.unwrap_or_default();
                let detail = format!("{}: the connection ended: {end}", self.what);
                Failure::new(Reason::HostUnreachable, detail)
            }
        }
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::new(Reason::AuthFailed, format!("{}: {why}", self.what))
    }
}

/// Errors name what is wrong and show nothing of the key.
fn read_key(pem: &str, passphrase: Option<&str>) -> Result<PrivateKey, String> {
    const UNREADABLE: &str =
        "the private key cannot be read; it must be a key file as ssh-keygen writes it";
    if !pem.contains("BEGIN OPENSSH PRIVATE KEY") {
        // The older forms pass through buffers of the library that are freed unwiped.
        return decode_secret_key(pem, passphrase).map_err(|_| match passphrase {
            Some(_) => format!("{UNREADABLE}, or its passphrase is wrong"),
            None => UNREADABLE.to_owned(),
        });
    }
    let key = PrivateKey::from_openssh(pem).map_err(|_| UNREADABLE)?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    let passphrase = passphrase
        .ok_or("the private key is encrypted and the credential has no passphrase for it")?;
    key.decrypt(passphrase)
        .map_err(|_| "the passphrase does not open the private key".to_owned())
}

/// Wiped when dropped, by the library of keys.
struct KeySigner(PrivateKey);

#[derive(Debug)]
enum SignFault {
    Ended,
    Key(ssh_key::Error),
}

impl From<SendError> for SignFault {
    fn from(_: SendError) -> Self {
        Self::Ended
    }
}

impl Signer for KeySigner {
    type Error = SignFault;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, SignFault> {
        let key = |error: ssh_key::Error| SignFault::Key(error);
        let signature: Signature = match self.0.key_data() {
            KeypairData::Rsa(pair) => (pair, hash).try_sign(&to_sign),
            pair => pair.try_sign(&to_sign),
        }
        .map_err(|error| key(error.into()))?;
        let mut encoded = Vec::new();
        signature
            .encode(&mut encoded)
            .and_then(|()| encoded.encode(&mut to_sign))
            .map_err(|error| key(error.into()))?;
        Ok(to_sign)
    }
}
