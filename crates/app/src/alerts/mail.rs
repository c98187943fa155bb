//! A notice by mail. Headers are made by the library from typed addresses and a subject without
//! control characters: nothing that a host or a rule is called can add one.

use lettre::{
    Message, SmtpTransport, Transport as _,
    message::{Mailbox, header::ContentType},
};
use scan::alert::{Notice, Tried};

use super::{Transport, words};

/// Answers to a log in that speak of our rights and not of this mail (RFC 4954).
const LOGIN_REFUSED: [u16; 4] = [530, 534, 535, 538];

pub(super) struct Mail {
    pub(super) smtp: SmtpTransport,
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
}

impl Mail {
    fn message(&self, notice: &Notice) -> Result<Message, lettre::error::Error> {
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(words::subject(notice))
            .header(ContentType::TEXT_PLAIN)
            // The same each time that this is tried: whoever has it already shows it once.
            .message_id(Some(format!(
                "<{}@{}>",
                notice.id,
                self.from.email.domain()
            )));
        for to in &self.to {
            message = message.to(to.clone());
        }
        message.body(words::body(notice))
    }
}

impl Transport for Mail {
    fn send(&self, notice: &Notice) -> Tried {
        let message = match self.message(notice) {
            Ok(message) => message,
            Err(error) => {
                return Tried::Refused {
                    reason: format!("no mail can be made of it: {error}"),
                };
            }
        };
        match self.smtp.send(&message) {
            Ok(_) => Tried::Taken,
            Err(error) => {
                let status = error.status().map(u16::from);
                let reason = if error.is_timeout() {
                    "no answer within the timeout".to_owned()
                } else {
                    words_of(&error)
                };
                let is_login = status.is_some_and(|status| LOGIN_REFUSED.contains(&status));
                if error.is_permanent() && !is_login {
                    Tried::Refused { reason }
                } else {
                    Tried::Again {
                        reason,
                        after: None,
                    }
                }
            }
        }
    }
}

/// The error with what caused it: the library says only what it was doing.
fn words_of(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
