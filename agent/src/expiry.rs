//! Certificates that will soon be of no use: an agent whose certificate has expired is silent, and nobody can tell that
//! from a quiet device.
//!
//! Looked at are the files of the connection: ours and the authorities' (RFC 5280, section 4.1.2.5, notAfter).

use std::time::{Duration, Instant};

use collector_common::clock::{Clock, is_plausible};
use collector_common::collector::{Draft, Emitter};
use collector_common::event::payload::{Diagnostic, Severity};
use collector_common::root::Root;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use tracing::warn;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::connection::Connection;
use crate::mqtt::Endpoint;

/// From how long before the end on it is said.
const NOTICE: Duration = Duration::from_secs(30 * DAY_SECONDS);

const DAY_SECONDS: u64 = 86_400;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(3600);

/// How often the hub is told.
const TELL: Duration = Duration::from_secs(DAY_SECONDS);

/// A bundle of authorities may hold hundreds of certificates; so many are named.
const MAX_NAMED: usize = 8;

/// The longest subject shown: characters.
const MAX_SUBJECT: usize = 80;

/// One sentence for each certificate of a connection that expires soon or has expired. `wall_us` is the time:
/// microseconds since the Unix epoch. A clock that cannot be right says nothing about dates, and a file that cannot be
/// read is told by whoever connects.
pub fn expiring(connection: &Connection, root: &Root, wall_us: i64) -> Vec<String> {
    if !is_plausible(wall_us) {
        return Vec::new();
    }
    let mut sentences = Vec::new();
    for file in [&connection.cert_file, &connection.ca_file].into_iter().flatten() {
        let pem = file.read("the certificates", root).unwrap_or_default();
        for der in CertificateDer::pem_slice_iter(&pem).map_while(Result::ok) {
            if let Some(sentence) = expires(&der, wall_us) {
                sentences.push(format!("{file}: {sentence}"));
            }
        }
    }
    let more = sentences.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        sentences.truncate(MAX_NAMED);
        sentences.push(format!("and {more} more"));
    }
    sentences
}

fn expires(der: &[u8], wall_us: i64) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let certificate = certificate.tbs_certificate();
    let end_seconds = i64::try_from(certificate.validity().not_after.to_unix_duration().as_secs()).ok()?;
    let left_seconds = end_seconds.saturating_sub(wall_us / 1_000_000);
    if left_seconds > i64::try_from(NOTICE.as_secs()).unwrap_or(i64::MAX) {
        return None;
    }
    let subject: String = certificate.subject().to_string().chars().take(MAX_SUBJECT).collect();
    let end =
        Timestamp::from_second(end_seconds).map_or_else(|_| "an impossible date".to_owned(), |end| end.to_string());
    Some(if left_seconds <= 0 {
        format!("the certificate of {subject} has expired on {end}")
    } else {
        let days = left_seconds / i64::try_from(DAY_SECONDS).unwrap_or(i64::MAX);
        format!("the certificate of {subject} expires in {days} days, on {end}")
    })
}

/// Looks every hour and after every change of the endpoint, shows what expires, and tells it once a day.
pub async fn watch(
    mut endpoint: watch::Receiver<Option<Endpoint>>,
    clock: Clock,
    out: Emitter,
    shown: watch::Sender<Vec<String>>,
) {
    let mut told: Option<Instant> = None;
    loop {
        let connection = endpoint.borrow_and_update().as_ref().map(|endpoint| endpoint.connection.clone());
        let wall_us = clock.now().wall_us;
        let look = move || connection.map(|connection| expiring(&connection, &Root::host(), wall_us));
        // Files are read and parsed off the runtime's only thread; a look that failed is repeated in an hour.
        let sentences = tokio::task::spawn_blocking(look).await.ok().flatten().unwrap_or_default();
        if !sentences.is_empty() && told.is_none_or(|at| at.elapsed() >= TELL) {
            let message = sentences.join("; ");
            warn!("{message}");
            let draft = Draft::alarm(clock.now(), Diagnostic::new(Severity::Warning, message));
            if out.send(draft).await.is_err() {
                return;
            }
            told = Some(Instant::now());
        }
        shown.send_replace(sentences);
        tokio::select! {
            () = crate::tick::wait(LOOK) => {}
            changed = endpoint.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const CERTIFICATE: &[u8] = include_bytes!("../../tests/fixtures/certificates/press-17.pem");

    #[test]
    fn a_certificate_is_named_from_thirty_days_before_its_end_on() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        std::fs::write(root.path("/c.pem"), CERTIFICATE.repeat(2)).unwrap();
        std::fs::write(root.path("/many.pem"), CERTIFICATE.repeat(20)).unwrap();
        let connection = |ca: &str| {
            let text = format!("{{\"connection\": {{\"url\": \"mqtts://h\", \"caFile\": \"{ca}\"}}}}");
            load("twin.json", &text, None).unwrap().local.connection.unwrap()
        };
        let der = CertificateDer::pem_slice_iter(CERTIFICATE).next().unwrap().unwrap();
        let end = Certificate::from_der(&der).unwrap().tbs_certificate().validity().not_after.to_unix_duration();
        let before_end = |days: i64| i64::try_from(end.as_micros()).unwrap() - days * 86_400 * 1_000_000;
        let at = |ca: &str, days: i64| expiring(&connection(ca), &root, before_end(days));
        assert_eq!(at("/c.pem", 31), [""; 0]);
        let sentences = at("/c.pem", 30);
        assert_eq!(sentences.len(), 2);
        assert!(sentences[0].starts_with("/c.pem: the certificate of "), "{sentences:?}");
        assert!(
            sentences[0].contains("press-17") && sentences[0].contains(" expires in 30 days, on "),
            "{sentences:?}"
        );
        assert!(at("/c.pem", -1)[0].contains(" has expired on "));
        assert_eq!((at("/many.pem", 1).len(), at("/many.pem", 1)[8].as_str()), (9, "and 12 more"));
        assert_eq!(at("/none.pem", 1), [""; 0]);
        assert_eq!(expiring(&connection("/c.pem"), &root, 0), [""; 0]);
    }
}
