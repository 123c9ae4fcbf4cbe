//! Why there is no connection, in words: what it means here first, what the system said in brackets. No I/O.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError};
use rustls::{AlertDescription, CertificateError};

/// Whether the hub was reached and did not take us in. Some hubs say nothing and close the connection.
pub fn is_refusal(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionRefused(_) | ConnectionError::MqttState(_))
}

/// Whether a message came that is larger than any may be, or is none. The connection is lost with it.
pub fn is_unreadable(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::MqttState(StateError::Deserialization(_)))
}

/// An error with its causes, and with what it means where that is known.
pub fn in_words(error: &ConnectionError) -> String {
    if let ConnectionError::ConnectionRefused(code) = error {
        return refusal(*code);
    }
    let said = with_causes(error);
    match meaning(error) {
        Some(meaning) => format!("{meaning} ({said})"),
        None => said,
    }
}

/// The codes of MQTT 3.1.1, section 3.2.2.3.
fn refusal(code: ConnectReturnCode) -> String {
    let (words, number) = match code {
        ConnectReturnCode::RefusedProtocolVersion => ("the hub does not speak MQTT 3.1.1", 1),
        ConnectReturnCode::BadClientId => ("the hub refused the client id", 2),
        ConnectReturnCode::ServiceUnavailable => ("the hub says it is unavailable", 3),
        ConnectReturnCode::BadUserNamePassword => ("the hub refused the user name or password", 4),
        ConnectReturnCode::NotAuthorized => ("the hub does not authorise this device", 5),
        code => return format!("the hub refused the connection: {code:?}"),
    };
    format!("{words} (CONNACK code {number})")
}

fn with_causes(error: &ConnectionError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            // Writing to a String cannot fail.
            let _always_ok = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}

fn meaning(error: &ConnectionError) -> Option<&'static str> {
    match error {
        ConnectionError::NetworkTimeout => Some("the hub does not answer"),
        ConnectionError::FlushTimeout => Some("the hub takes nothing more"),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            Some("the hub does not answer when it is asked whether it lives; the link is taken for dead")
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => Some("the hub closed the connection"),
        ConnectionError::MqttState(StateError::Io(error))
        | ConnectionError::Io(error)
        | ConnectionError::Tls(TlsError::Io(error)) => of_io(error),
        ConnectionError::Tls(TlsError::TLS(error)) => of_tls(error),
        _ => None,
    }
}

fn of_io(error: &io::Error) -> Option<&'static str> {
    // The TLS of tokio wraps its errors into those of I/O.
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return of_tls(tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            Some("nothing listens at the hub's address and port, or a firewall refuses")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Some("there is no way to the hub; is the network up?")
        }
        io::ErrorKind::TimedOut => Some("the hub does not answer"),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some("the connection was closed from outside"),
        // The resolver's errors have no kind of their own.
        _ if error.to_string().contains("failed to lookup address") => {
            Some("the hub's name cannot be resolved; is the name right, and does DNS work here?")
        }
        _ => None,
    }
}

fn of_tls(error: &rustls::Error) -> Option<&'static str> {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::UnknownIssuer => Some("no authority in caFile has signed the hub's certificate"),
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                Some("the hub's certificate has expired by the clock here")
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                Some("the hub's certificate is not valid yet by the clock here")
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                Some("the hub's certificate is for another name than the one in the url")
            }
            // Only our own look at a pinned certificate says so.
            Certificate::ApplicationVerificationFailure => {
                Some("the hub's certificate is not the one in pinnedCertificate")
            }
            _ => None,
        },
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied,
        ) => Some("the hub does not take this device's certificate; is there one, is it registered, has it expired?"),
        rustls::Error::InvalidMessage(_) => Some("the hub does not speak TLS on this port"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::UnixTime;
    use rustls::{Error as Tls, InvalidMessage};

    use super::*;
    use crate::status::words::tests::check_golden;

    #[test]
    fn each_way_to_have_no_connection_is_explained() {
        let os = |code| ConnectionError::Io(io::Error::from_raw_os_error(code));
        let wrapped =
            |error: Tls| ConnectionError::Tls(TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, error)));
        let certificate = |error| wrapped(Tls::InvalidCertificate(error));
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let dns = "failed to lookup address information: Name or service not known";
        let errors = [
            ConnectionError::Io(io::Error::other(dns)),
            os(111),
            os(113),
            os(101),
            os(104),
            ConnectionError::NetworkTimeout,
            ConnectionError::MqttState(StateError::ConnectionAborted),
            ConnectionError::MqttState(StateError::AwaitPingResp),
            certificate(CertificateError::UnknownIssuer),
            certificate(CertificateError::ExpiredContext { time: at(1_795_000_000), not_after: at(1_790_000_000) }),
            certificate(CertificateError::NotValidYetContext { time: at(0), not_before: at(1_790_000_000) }),
            certificate(CertificateError::NotValidForName),
            certificate(CertificateError::ApplicationVerificationFailure),
            wrapped(Tls::AlertReceived(AlertDescription::CertificateExpired)),
            wrapped(Tls::InvalidMessage(InvalidMessage::InvalidContentType)),
            ConnectionError::ConnectionRefused(ConnectReturnCode::RefusedProtocolVersion),
            ConnectionError::ConnectionRefused(ConnectReturnCode::BadClientId),
            ConnectionError::ConnectionRefused(ConnectReturnCode::ServiceUnavailable),
            ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword),
            ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized),
        ];
        let text: String = errors.iter().map(|error| in_words(error) + "\n").collect();
        check_golden("connection.txt", &text);
    }
}
