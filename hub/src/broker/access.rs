//! Who may come in and speak for which device: pure but for the devices file, which may have changed since.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;

use crate::devices::{self, Devices, Hash};
use crate::ingest::Topic;

pub(super) struct Access {
    pub(super) topic: Topic,
    /// Devices that log in with a password.
    pub(super) devices: Option<Mutex<Devices>>,
    /// Whether devices log in with certificates.
    pub(super) certificates: bool,
}

/// Whom a connection speaks for, and how we know.
pub(super) enum Identity {
    /// Whomever it says: the hub asks nobody who he is.
    Anyone,
    /// The device a certificate names.
    Certificate(String),
    /// The device a password belongs to, which was this one.
    Password(String, Hash),
}

/// Why a connection does not come in.
pub(super) struct Refusal {
    pub(super) code: ReasonCode,
    pub(super) why: String,
}

fn refuse<T>(code: ReasonCode, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, why: why.into() })
}

impl Access {
    /// Decides who a CONNECT comes from. The client id has to be the device id: a broker ends an older connection of
    /// the same client id, so a free choice would let each device push any other off. The will is a message as well.
    pub(super) fn identify(
        &self,
        connect: &ConnectPacket,
        certificate: Option<Result<String, String>>,
    ) -> Result<Identity, Refusal> {
        let identity = match certificate {
            Some(Ok(name)) => of_certificate(name, connect)?,
            Some(Err(why)) => return refuse(ReasonCode::NotAuthorized, why),
            None => self.without_certificate(connect)?,
        };
        let Some(device) = identity.device() else { return Ok(identity) };
        if connect.client_id != device {
            return refuse(
                ReasonCode::ClientIdentifierNotValid,
                format!("{device} came with the client id {:?}, which has to be its device id", connect.client_id),
            );
        }
        if let Some(will) = &connect.will
            && !self.may_publish(&identity, &will.topic)
        {
            return refuse(ReasonCode::NotAuthorized, format!("{device} left a will for {:?}", will.topic));
        }
        Ok(identity)
    }

    fn without_certificate(&self, connect: &ConnectPacket) -> Result<Identity, Refusal> {
        let Some(mut devices) = self.devices() else {
            // With certificates only, the handshake has turned such a connection away before.
            let why = "no client certificate";
            return if self.certificates { refuse(ReasonCode::NotAuthorized, why) } else { Ok(Identity::Anyone) };
        };
        let (Some(device), Some(password)) = (&connect.username, &connect.password) else {
            return refuse(ReasonCode::BadUsernameOrPassword, "no user name and password");
        };
        match devices.find(device) {
            Some(hash) if hash.is_of(password) => Ok(Identity::Password(device.clone(), hash.clone())),
            Some(_) => refuse(ReasonCode::BadUsernameOrPassword, format!("a wrong password for {device}")),
            None => refuse(ReasonCode::BadUsernameOrPassword, format!("{device:?} is no device of the devices file")),
        }
    }

    /// Whether a message on this topic is the device's own. Without credentials the store decides, which keeps what it
    /// refuses.
    pub(super) fn may_publish(&self, identity: &Identity, topic: &str) -> bool {
        identity.device().is_none_or(|device| self.topic.device(topic).is_ok_and(|named| named == device))
    }

    /// Whether this is still true of a connection that was let in: a password can be taken back.
    pub(super) fn still_holds(&self, identity: &Identity) -> bool {
        match (identity, self.devices()) {
            (Identity::Password(device, then), Some(mut devices)) => devices.find(device) == Some(then),
            _ => true,
        }
    }

    fn devices(&self) -> Option<MutexGuard<'_, Devices>> {
        self.devices.as_ref().map(|devices| devices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn of_certificate(name: String, connect: &ConnectPacket) -> Result<Identity, Refusal> {
    if let Err(why) = devices::check_id(&name) {
        return refuse(ReasonCode::NotAuthorized, format!("the certificate names {name:?}: {why}"));
    }
    match &connect.username {
        Some(user) if *user != name => {
            refuse(ReasonCode::NotAuthorized, format!("{name} has the certificate, and the user name is {user:?}"))
        }
        _ => Ok(Identity::Certificate(name)),
    }
}

impl Identity {
    /// The device, when the connection speaks for exactly one.
    pub(super) fn device(&self) -> Option<&str> {
        match self {
            Identity::Anyone => None,
            Identity::Certificate(device) | Identity::Password(device, _) => Some(device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(client_id: &str, user: Option<(&str, &str)>) -> ConnectPacket {
        let mut connect = ConnectPacket::new(mqtt5::types::ConnectOptions::new(client_id).protocol_options);
        connect.username = user.map(|(name, _)| name.to_owned());
        connect.password = user.map(|(_, password)| password.as_bytes().to_vec());
        connect
    }

    #[test]
    fn a_certificate_or_a_password_counts_where_both_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("devices");
        let password = devices::add(&file, "press-17").unwrap();
        let access = Access {
            topic: Topic::new("{deviceId}").unwrap(),
            devices: Some(Mutex::new(Devices::open(&file).unwrap())),
            certificates: true,
        };
        let certified = |name: &str| Some(Ok(name.to_owned()));
        let right = Some(("press-17", password.as_str()));
        for (connect, certificate, device) in [
            (connect("press-17", right), None, "press-17"),
            (connect("press-18", None), certified("press-18"), "press-18"),
            (connect("press-18", Some(("press-18", ""))), certified("press-18"), "press-18"),
        ] {
            let identity = access.identify(&connect, certificate).map_err(|refusal| refusal.why).unwrap();
            assert_eq!(identity.device(), Some(device));
            assert!(access.may_publish(&identity, device) && !access.may_publish(&identity, "press-19"));
        }
        for (connect, certificate, code) in [
            // A certificate does not help to another's name, a password not to another's certificate.
            (connect("press-17", right), certified("press-18"), ReasonCode::NotAuthorized),
            (connect("press-17", None), certified("press-18"), ReasonCode::ClientIdentifierNotValid),
            (connect("a/b", None), certified("a/b"), ReasonCode::NotAuthorized),
            (connect("", None), certified(""), ReasonCode::NotAuthorized),
            (connect("x", None), Some(Err("no name".to_owned())), ReasonCode::NotAuthorized),
            (connect("press-17", None), None, ReasonCode::BadUsernameOrPassword),
            (connect("", right), None, ReasonCode::ClientIdentifierNotValid),
        ] {
            let refusal = access.identify(&connect, certificate).err().unwrap();
            assert_eq!(refusal.code, code, "{}", refusal.why);
        }
    }

    #[test]
    fn nobody_comes_in_without_a_certificate_where_nothing_else_counts() {
        let access = Access { topic: Topic::new("{deviceId}").unwrap(), devices: None, certificates: true };
        let refusal = access.identify(&connect("press-17", Some(("press-17", "x"))), None).err().unwrap();
        assert_eq!(refusal.code, ReasonCode::NotAuthorized);
    }
}
