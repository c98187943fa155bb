//! A server that does the protocol right and everything else as it is told.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use russh::{
    Channel, ChannelId, MethodKind, MethodSet,
    keys::{Algorithm, PrivateKey},
    server::{self, Auth, ChannelOpenHandle, Config, Handle, Msg, Response, Session},
};
use tokio::{net::TcpListener, runtime::Runtime};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    RefusesAll,
    AsksWithoutEnd,
    AsksForTwoSecrets,
    NeverAnswers,
    NoSession,
    NoExec,
    SilentAfterExec,
    EndsAtOnce,
    PrintsWithoutEnd,
    ComplainsWithoutEnd,
    OpensChannels,
    HangsUp,
    WrongFirstLine,
    StartsThenPrintsWithoutEnd,
    StartsThenSilent,
    NeverListens,
    PromptsOfItsOwn,
    PromptsTwice,
    PromptsWithoutEnd,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    /// Ends what it serves with it, however that hangs.
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let key = PrivateKey::random(&mut rand(), Algorithm::Ed25519).unwrap();
        let window = if behaviour == Behaviour::NeverListens {
            1024
        } else {
            1 << 20
        };
        let methods = match behaviour {
            Behaviour::AsksWithoutEnd | Behaviour::AsksForTwoSecrets => {
                MethodSet::from(&[MethodKind::KeyboardInteractive][..])
            }
            _ => MethodSet::from(&[MethodKind::Password][..]),
        };
        let config = Arc::new(Config {
            keys: vec![key],
            methods,
            auth_rejection_time: Duration::ZERO,
            window_size: window,
            ..Config::default()
        });
        let host = Host {
            behaviour,
            heard: Arc::clone(&heard),
            window,
        };
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = server::run_stream(Arc::clone(&config), stream, host.clone());
                tokio::spawn(async move {
                    // The client ends it; how is the client's test.
                    if let Ok(serving) = serving.await {
                        drop(serving.await);
                    }
                });
            }
        });
        Self {
            port: address.port(),
            heard,
            runtime: Some(runtime),
        }
    }

    /// Everything that came on standard input.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn rand() -> impl russh::keys::ssh_key::rand_core::CryptoRng {
    russh::keys::key::safe_rng()
}

#[derive(Clone)]
struct Host {
    behaviour: Behaviour,
    heard: Arc<Mutex<Vec<u8>>>,
    window: u32,
}

impl Host {
    /// What the command does once it runs.
    async fn act(self, handle: Handle, id: ChannelId, mark: String) -> Result<(), Vec<u8>> {
        let print = async |text: String| handle.data(id, text.into_bytes()).await.map(drop);
        let complain = async |text: String| {
            handle
                .extended_data(id, 1, text.into_bytes())
                .await
                .map(drop)
        };
        let block = "on and on ".repeat(3000);
        match self.behaviour {
            Behaviour::EndsAtOnce => {
                print("This account is currently not available.\n".to_owned())
                    .await
                    .ok();
                handle.eof(id).await.ok();
                handle.close(id).await.ok();
            }
            Behaviour::PrintsWithoutEnd => while print(block.clone()).await.is_ok() {},
            Behaviour::ComplainsWithoutEnd => while complain(block.clone()).await.is_ok() {},
            Behaviour::OpensChannels => while handle.channel_open_session().await.is_ok() {},
            Behaviour::HangsUp => {
                handle
                    .disconnect(
                        russh::Disconnect::ByApplication,
                        "enough".into(),
                        "en".into(),
                    )
                    .await
                    .ok();
            }
            Behaviour::WrongFirstLine => {
                print(format!("{mark} anything\n")).await.ok();
            }
            Behaviour::StartsThenPrintsWithoutEnd => {
                print(format!("{mark} root\n")).await.ok();
                while print(block.clone()).await.is_ok() {}
            }
            Behaviour::StartsThenSilent | Behaviour::NeverListens => {
                print(format!("{mark} root\n")).await.ok();
            }
            Behaviour::PromptsOfItsOwn => {
                complain("[sudo] password for someone: \nVerification code: ".to_owned())
                    .await
                    .ok();
            }
            Behaviour::PromptsTwice => {
                complain(format!("[{mark}]")).await.ok();
                complain(format!("Sorry, try again.\n[{mark}]")).await.ok();
            }
            Behaviour::PromptsWithoutEnd => {
                while complain(format!("[{mark}]").repeat(100)).await.is_ok() {}
            }
            _ => {}
        }
        Ok(())
    }
}

impl server::Handler for Host {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<Auth, Self::Error> {
        match self.behaviour {
            Behaviour::RefusesAll => Ok(Auth::reject()),
            Behaviour::NeverAnswers => std::future::pending().await,
            _ => Ok(Auth::Accept),
        }
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let prompt = |text: &'static str| (text.into(), false);
        Ok(Auth::Partial {
            name: "".into(),
            instructions: "".into(),
            prompts: match self.behaviour {
                Behaviour::AsksForTwoSecrets => vec![prompt("Password:"), prompt("Code:")].into(),
                _ => vec![prompt("Password:")].into(),
            },
        })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.behaviour != Behaviour::NoSession {
            reply.accept().await;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.behaviour == Behaviour::NoExec {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        let command = String::from_utf8_lossy(command);
        let mark = command
            .split("m=")
            .nth(1)
            .and_then(|rest| rest.split(';').next());
        let mark = mark.expect("the prelude names it").to_owned();
        let handle = session.handle();
        let is_playing_sudo = matches!(
            self.behaviour,
            Behaviour::PromptsOfItsOwn | Behaviour::PromptsTwice | Behaviour::PromptsWithoutEnd
        );
        // The second try comes without sudo, and gets what it wants.
        if is_playing_sudo && !command.contains("sudo") {
            let line = format!("{mark} none\n");
            tokio::spawn(async move { handle.data(id, line.into_bytes()).await.map(drop) });
            return Ok(());
        }
        tokio::spawn(self.clone().act(handle, id, mark));
        Ok(())
    }

    async fn data(
        &mut self,
        _: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.heard.lock().unwrap().extend_from_slice(data);
        if self.behaviour == Behaviour::NeverListens {
            // Its task hangs here, and with it every sign that there is room.
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.window
    }
}
