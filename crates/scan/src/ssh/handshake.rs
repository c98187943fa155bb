//! What a host may do before and beside its command: show its key, greet, and leave.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use russh::{
    Channel, client,
    client::{ChannelOpenHandle, DisconnectReason, Msg},
    keys::{Algorithm, PublicKey, PublicKeyOrCertificate},
};

use super::{Endpoint, Trust, algorithms, locked};
use crate::{
    failure::{Failure, Reason},
    known_hosts::Accepted,
};

/// Greetings before a password is asked for. One is usual, PAM modules may add theirs.
const BANNERS_MAX: u32 = 16;

/// What is kept of a sentence of the host's, in characters: for a message, not for a record.
const SENTENCE_MAX: usize = 200;

/// Ours, or one that the library found.
pub(super) enum Fault {
    Ours(Failure),
    Library(russh::Error),
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Library(error)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(failure) => f.write_str(&failure.detail),
            Self::Library(error) => error.fmt(f),
        }
    }
}

/// What was heard that somebody asks for later.
#[derive(Debug, Default)]
pub(super) struct Said {
    host_key: Option<PublicKey>,
    end: Option<String>,
    /// The end was the host's own, in words.
    is_farewell: bool,
}

impl Said {
    pub(super) fn host_key(said: &Mutex<Self>) -> Option<PublicKey> {
        locked(said).host_key.clone()
    }

    pub(super) fn end(said: &Mutex<Self>) -> Option<String> {
        locked(said).end.clone()
    }

    pub(super) fn farewell(said: &Mutex<Self>) -> Option<String> {
        let said = locked(said);
        said.is_farewell.then(|| said.end.clone()).flatten()
    }
}

/// Sits in the library's task and judges what the host does.
pub(super) struct Watch {
    endpoint: Endpoint,
    /// None: whatever key it is, it is only looked at.
    trust: Option<Trust>,
    banners: u32,
    pub(super) said: Arc<Mutex<Said>>,
}

impl Watch {
    pub(super) fn judging(endpoint: &Endpoint, trust: &Trust) -> Self {
        Self {
            trust: Some(trust.clone()),
            ..Self::looking(endpoint)
        }
    }

    pub(super) fn looking(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            trust: None,
            banners: 0,
            said: Arc::default(),
        }
    }

    pub(super) fn known_types(&self) -> Vec<Algorithm> {
        let trust = self.trust.as_ref();
        trust.map_or_else(Vec::new, |trust| trust.known.algorithms())
    }

    /// Called after the host proved that the key is its own, before it hears anything of us.
    fn judge(&self, key: &PublicKey) -> Result<(), Failure> {
        let Some(trust) = &self.trust else {
            return Ok(());
        };
        if let Some(weakness) = algorithms::weakness(key) {
            let detail = format!("{} shows {weakness}", self.endpoint);
            return Err(Failure::new(Reason::HostKeyUnknown, detail));
        }
        let endpoint = self.endpoint.to_string();
        match trust.known.check(key).judge(trust.policy, &endpoint)? {
            Accepted::Known => Ok(()),
            Accepted::FirstSight => (trust.first_sight)(key),
        }
    }

    fn refuse_channel(&self) -> Result<(), Fault> {
        let detail = format!("{} tried to open a channel to us", self.endpoint);
        Err(Fault::Ours(Failure::new(Reason::HostUnreachable, detail)))
    }
}

/// Short enough for a message. Control characters stay: who shows it escapes them.
fn sentence(text: &str) -> String {
    text.trim().chars().take(SENTENCE_MAX).collect()
}

impl client::Handler for Watch {
    type Error = Fault;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Fault> {
        let key = key.public_key();
        self.judge(&key).map_err(Fault::Ours)?;
        locked(&self.said).host_key = Some(key);
        Ok(true)
    }

    async fn auth_banner(&mut self, _: &str, _: &mut client::Session) -> Result<(), Fault> {
        self.banners += 1;
        if self.banners > BANNERS_MAX {
            let detail = format!("{} greets without end", self.endpoint);
            return Err(Fault::Ours(Failure::new(Reason::HostUnreachable, detail)));
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Fault>) -> Result<(), Fault> {
        let mut said = locked(&self.said);
        match reason {
            DisconnectReason::ReceivedDisconnect(farewell) => {
                said.end = Some(sentence(&farewell.message));
                said.is_farewell = true;
                Ok(())
            }
            DisconnectReason::Error(fault) => {
                said.end = Some(sentence(&fault.to_string()));
                Err(fault)
            }
        }
    }

    // A host has no business opening channels to us; nothing was forwarded. The library would accept
    // them and keep a record of each.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Fault> {
        self.refuse_channel()
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Fault> {
        self.refuse_channel()
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Fault> {
        self.refuse_channel()
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Fault> {
        self.refuse_channel()
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Fault> {
        self.refuse_channel()
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Fault> {
        self.refuse_channel()
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Fault> {
        self.refuse_channel()
    }
}
