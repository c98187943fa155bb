//! Messages: who may say them, and to whom in this node they go.
//!
//! A message under a lower epoch than the highest that is on disk here, or under the same number with
//! another id, is answered with that and changes nothing.

use super::{
    Body, Event, Header, Message, Record,
    log::Pending,
    node::Node,
    promise::{Begin, Then},
};

impl Node {
    pub(super) fn received(&mut self, message: Message) {
        if !self.is_ours(&message) {
            return;
        }
        let Message { header, body } = message;
        match body {
            Body::Inquire { .. } => {
                let sealed = self.sealed();
                self.out.send(header.from, Body::Inquired(sealed));
            }
            Body::Seal { candidate } if candidate == header.from => self.seal(header),
            Body::Inquired(answer) => self.candidacy_answered(header, answer, false),
            Body::Sealed(answer) => self.candidacy_answered(header, answer, true),
            Body::Refused { highest, id, asker } => self.refused(header, highest, id, asker),
            Body::Promoted { start, holder } => self.promoted(header, start, holder),
            Body::Attached(_)
            | Body::Truncated { .. }
            | Body::Flushed { .. }
            | Body::Missing { .. }
            | Body::BaseStored { .. }
            | Body::Sound { .. }
            | Body::Configured { .. }
            | Body::Failed { .. } => self.of_replica(header, body),
            Body::Seal { .. } => {}
            body => self.of_primary(header, body),
        }
    }

    /// A replica answers under the epoch of its primary, or says nothing that counts here.
    fn of_replica(&mut self, header: Header, body: Body) {
        let own = self.out.header;
        if (header.epoch, header.epoch_id) == (own.epoch, own.epoch_id) {
            self.with_primary(|primary, office| {
                primary.with(header.from, office, |sender, desk| sender.heard(body, desk));
            });
        }
    }

    fn of_primary(&mut self, header: Header, body: Body) {
        let (epoch, id, asker) = self.record().promised;
        let is_promised = (header.epoch, header.epoch_id, header.from) == (epoch, id, asker);
        if header.epoch <= epoch && !is_promised {
            return self.refuse(header.from);
        }
        if let Body::Attach(attach) = body {
            return self.attach(header, attach);
        }
        let Some(receiver) = self.receiver.as_ref().filter(|receiver| {
            let session = (receiver.session, receiver.endpoint);
            is_promised && receiver.primary == header.from && body.session() == Some(session)
        }) else {
            return;
        };
        let is_of_another = |attachment| attachment != receiver.attachment;
        if body.attachment().is_some_and(is_of_another) {
            // It was told to be whole, began the session again before it heard so, and gets no base any more: the
            // primary would say it for ever.
            let is_left = self.record().is_amnesiac && !receiver.is_receiving_base();
            if is_left && matches!(body, Body::Rebuilt { .. }) {
                let reason = "it began the session again since".to_owned();
                receiver.fail(reason, &mut self.out);
            }
            return;
        }
        self.of_session(header, body);
    }

    fn of_session(&mut self, header: Header, body: Body) {
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        receiver.last_heard = self.now;
        let (log, out) = (&mut self.log, &mut self.out);
        match body {
            Body::Truncate { keep, .. } => receiver.truncate(keep, log, out),
            Body::Entries {
                previous,
                entries,
                committed,
                ..
            } => {
                receiver.entries(previous, entries, committed, log, out);
            }
            Body::BasePart { index, bytes, .. } => receiver.base_part(index, bytes, out),
            Body::Heartbeat {
                ordinal,
                sent,
                committed,
                ..
            } => {
                receiver.heartbeat(ordinal, sent, committed, log, out);
            }
            Body::HandOver { end, epoch_id, .. } => {
                if self.log.flushed == end && self.candidacy.is_none() {
                    self.promote(None, self.me, None, None, epoch_id);
                }
            }
            body => self.kept_first(header, body),
        }
    }

    /// What a primary says and what has to be on disk before it is answered.
    fn kept_first(&mut self, header: Header, body: Body) {
        if self.keeper.is_busy() {
            return self.keeper.defer(Event::Received(Message { header, body }));
        }
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        let record = self.keeper.record();
        match body {
            Body::BaseBegin {
                session,
                attachment,
                base,
                history,
                since,
                parts,
                ..
            } => {
                if !receiver.may_begin_base(base, parts, &history, &self.log, &mut self.out) {
                    return;
                }
                let begin = Begin {
                    session,
                    attachment,
                    base,
                    history,
                    since,
                    parts,
                    was_sound: !self.is_damaged && (self.is_unbegun || !record.is_amnesiac),
                };
                if record.is_amnesiac {
                    return self.begin_base(begin);
                }
                let reason = "a rebuild throws its log away".to_owned();
                let record = Record {
                    is_amnesiac: true,
                    reason,
                    ..record.clone()
                };
                self.keep(record, Then::BeginBase(Box::new(begin)));
            }
            Body::Rebuilt { session, .. } => {
                if !receiver.is_whole() || self.log.is_half {
                    return;
                }
                if !record.is_amnesiac && !self.is_damaged {
                    return receiver.report_sound(&mut self.out);
                }
                let reason = "it was rebuilt".to_owned();
                let record = Record {
                    is_amnesiac: false,
                    reason,
                    ..record.clone()
                };
                self.keep(record, Then::Sound { session });
            }
            Body::Configure { config, .. } => {
                if config.version <= record.config.version || !config.is_of_a_size() {
                    return self.report_configured();
                }
                let record = Record {
                    config,
                    ..record.clone()
                };
                self.keep(record, Then::Configured);
            }
            _ => {}
        }
    }

    pub(super) fn begin_base(&mut self, begin: Begin) {
        let Begin {
            session,
            attachment,
            base,
            history,
            since,
            parts,
            was_sound,
        } = begin;
        let receiver = self.receiver.as_mut();
        let receiver = receiver.filter(|receiver| receiver.attachment == attachment);
        let (log, out) = (&mut self.log, &mut self.out);
        if let Some(receiver) = receiver
            && receiver.may_begin_base(base, parts, &history, log, out)
        {
            self.is_unbegun = false;
            log.pending = Some(Pending::Base {
                session,
                base,
                history: history.clone(),
                since,
                was_sound,
            });
            receiver.begin_base(base, history, since, parts, out);
        } else {
            // Its session is over, or cannot begin it.
            self.is_unbegun |= was_sound;
        }
    }

    pub(super) fn report_configured(&mut self) {
        let version = self.keeper.record().config.version;
        if let Some(receiver) = &self.receiver {
            let body = Body::Configured {
                session: receiver.session,
                endpoint: receiver.endpoint,
                version,
            };
            self.out.send(receiver.primary, body);
        }
    }
}
