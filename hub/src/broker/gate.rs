//! What one connection has to pass: its CONNECT, each PUBLISH, and its will.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use mqtt5::QoS;
use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::{BrokerEventHandler, ClientDisconnectEvent, ClientPublishEvent, PublishAction};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::packet::publish::PublishPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;

use super::Shared;
use super::access::{Identity, Refusal};
use super::lobby::Seat;
use super::tls::Tls;

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The largest will that is kept, for as long as its connection stands; an agent's has a few hundred bytes.
const MAX_WILL_BYTES: usize = 16 * 1024;

/// A certificate that a device showed.
pub(super) struct Shown {
    /// Whose it is, or why that cannot be told.
    pub(super) name: Result<String, String>,
    /// How often the TLS files had been read again when it was checked.
    pub(super) reloads: u64,
}

/// One connection's gate.
pub(super) struct Gate {
    shared: Arc<Shared>,
    /// Its place in the lobby.
    number: u64,
    certificate: Option<Shown>,
    admitted: OnceLock<Admitted>,
    /// Set when the broker is about to publish the will by itself, which it must not.
    is_over: AtomicBool,
}

/// A connection that was let in.
struct Admitted {
    identity: Identity,
    /// Topic and payload.
    will: Option<(String, Vec<u8>)>,
    _seat: Seat,
}

impl Gate {
    pub(super) fn new(shared: Arc<Shared>, number: u64, certificate: Option<Shown>) -> Gate {
        Gate { shared, number, certificate, admitted: OnceLock::new(), is_over: AtomicBool::new(false) }
    }

    fn admit(&self, connect: &ConnectPacket) -> Result<(), Refusal> {
        let identity =
            self.shared.access.identify(connect, self.certificate.as_ref().map(|shown| shown.name.clone()))?;
        let Some(seat) = self.shared.lobby.seat(&connect.client_id) else {
            let why = format!("{:?} comes, and --max-connections is reached", connect.client_id);
            return Err(Refusal { code: ReasonCode::ServerUnavailable, why });
        };
        let will = connect.will.as_ref().filter(|will| will.payload.len() <= MAX_WILL_BYTES);
        let will = will.map(|will| (will.topic.clone(), will.payload.clone()));
        let twice = |_| Refusal { code: ReasonCode::ProtocolError, why: "a second CONNECT".to_owned() };
        self.admitted.set(Admitted { identity, will, _seat: seat }).map_err(twice)?;
        self.shared.lobby.leave(self.number);
        Ok(())
    }

    /// Ends the connection without an answer, which is how MQTT 3.1.1 says no: any PUBACK means "delivered", and the
    /// device would delete what is nowhere.
    async fn leave_unanswered(&self, client_id: &str) -> PublishAction {
        self.shared.router.disconnect_client(client_id).await;
        PublishAction::Transform(PublishPacket::new("edgewarden-hub/not-stored", Vec::new(), QoS::AtMostOnce))
    }

    /// Whether what vouched for the device when it connected still counts: an authority may be gone, a certificate
    /// taken back.
    fn is_certificate_current(&self) -> bool {
        let reloads = self.shared.tls.as_ref().map_or(0, Tls::reloads);
        self.certificate.as_ref().is_none_or(|shown| shown.reloads == reloads)
    }

    /// Why this connection may not have this stored.
    fn objection(&self, topic: &str) -> Option<String> {
        let Some(Admitted { identity, .. }) = self.admitted.get() else {
            return Some("a message before the CONNECT".to_owned());
        };
        let device = identity.device().unwrap_or_default();
        if !self.is_certificate_current() {
            Some(format!("{device} has to show its certificate again, because the TLS files were read again"))
        } else if !self.shared.access.still_holds(identity) {
            Some(format!("the password of {device} was taken back; its connection ends"))
        } else if !self.shared.access.may_publish(identity, topic) {
            Some(format!("{device} may not publish to {topic:?}; its connection ends"))
        } else {
            None
        }
    }
}

impl AuthProvider for Gate {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        peer: SocketAddr,
    ) -> Later<'a, mqtt5::error::Result<AuthResult>> {
        let result = match self.admit(connect) {
            // Some user has to be named, or `cleanup_session` is not called.
            Ok(()) => AuthResult::success_with_user(connect.client_id.clone()),
            Err(Refusal { code, why }) => {
                if let Some(more) = self.shared.refused.now() {
                    tracing::warn!(%peer, more, "connection refused: {why}");
                }
                AuthResult::fail(code)
            }
        };
        Box::pin(ready(Ok(result)))
    }

    /// Says yes to every PUBLISH, which `on_client_publish` decides about: to a no the broker answers with a PUBACK. At
    /// the end it is asked about the will, which is none of its business.
    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Later<'a, bool> {
        Box::pin(ready(!self.is_over.load(Ordering::Relaxed)))
    }

    /// A device may listen to its own topics only, and who is nobody in particular has none.
    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, filter: &'a str) -> Later<'a, bool> {
        let device = self.admitted.get().and_then(|admitted| admitted.identity.device());
        Box::pin(ready(device.is_some_and(|device| self.shared.access.topic.is_below(device, filter))))
    }

    fn cleanup_session<'a>(&'a self, _: &'a str) -> Later<'a, ()> {
        self.is_over.store(true, Ordering::Relaxed);
        Box::pin(ready(()))
    }
}

impl BrokerEventHandler for Gate {
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Later<'a, PublishAction> {
        Box::pin(async move {
            if let Some(why) = self.objection(&event.topic) {
                if let Some(more) = self.shared.foreign.now() {
                    tracing::warn!(more, "message not taken: {why}");
                }
                return self.leave_unanswered(&event.client_id).await;
            }
            match self.shared.ingest.deliver(event.topic.to_string(), event.payload.to_vec()).await {
                Ok(_) => PublishAction::Handled,
                Err(_) => self.leave_unanswered(&event.client_id).await,
            }
        })
    }

    fn on_client_disconnect<'a>(&'a self, event: ClientDisconnectEvent) -> Later<'a, ()> {
        let will = self.admitted.get().and_then(|admitted| admitted.will.clone());
        Box::pin(async move {
            let Some((topic, payload)) = will.filter(|_| event.unexpected) else { return };
            if self.objection(&topic).is_some() {
                return;
            }
            if let Err(error) = self.shared.ingest.deliver(topic, payload).await {
                tracing::error!("the will of {} is not stored: {error}", event.client_id);
            }
        })
    }
}
