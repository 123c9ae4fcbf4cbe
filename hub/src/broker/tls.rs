//! TLS: the hub's certificate, and the certificates of the devices.
//!
//! A device's id is the common name of its certificate's subject, the same that `{certCN}` gives the agent. Names and
//! addresses among the alternative names are not looked at: they say how to reach a server, not who a device is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::secret;

/// PEM files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The hub's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that vouch for devices.
    pub client_ca: Option<PathBuf>,
    /// What these authorities have taken back.
    pub client_crl: Option<PathBuf>,
}

/// The way into TLS, which can be made anew while the hub runs.
pub(super) struct Tls {
    files: Files,
    /// Whether a device without a certificate is turned away in the handshake, because it has no other way in.
    must_have_certificate: bool,
    current: Mutex<Arc<ServerConfig>>,
    /// How often the files were read again.
    reloads: AtomicU64,
}

impl Tls {
    /// Reads the files.
    pub(super) fn load(files: &Files, must_have_certificate: bool) -> Result<Tls, String> {
        let current = Mutex::new(Arc::new(server_config(files, must_have_certificate)?));
        Ok(Tls { files: files.clone(), must_have_certificate, current, reloads: AtomicU64::new(0) })
    }

    /// Reads the files again, for the connections from now on. What cannot be used changes nothing.
    pub(super) fn reload(&self) -> Result<(), String> {
        let config = server_config(&self.files, self.must_have_certificate)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How often the files were read again. A certificate that was checked at another count has to be checked again.
    pub(super) fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    pub(super) async fn accept(&self, socket: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(config).accept(socket).await
    }
}

/// Who the other end is, when it showed a certificate; the handshake has checked it.
pub(super) fn common_name(stream: &TlsStream<TcpStream>) -> Option<Result<String, String>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let certificate = Certificate::from_der(certificate);
    let certificate = certificate.map_err(|error| format!("its certificate cannot be read: {error}"));
    Some(certificate.and_then(|certificate| match certificate.tbs_certificate().subject().common_name() {
        Ok(Some(name)) => Ok(name.value().into_owned()),
        Ok(None) => Err("its certificate has no common name, which is the device id".to_owned()),
        Err(error) => Err(format!("the common name of its certificate cannot be read: {error}")),
    }))
}

fn server_config(files: &Files, must_have_certificate: bool) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = if let Some(file) = &files.client_ca {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("the certificates for --client-ca", file)? {
            roots.add(certificate).map_err(|error| format!("{} cannot be used: {error}", file.display()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.with_crls(revoked(files)?).allow_unknown_revocation_status();
        let verifier = if must_have_certificate { verifier } else { verifier.allow_unauthenticated() };
        builder.with_client_cert_verifier(
            verifier.build().map_err(|error| format!("{} cannot be used: {error}", file.display()))?,
        )
    } else {
        builder.with_no_client_auth()
    };
    let chain = certificates("the certificate", &files.cert)?;
    let pem = secret::read("the private key", &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| format!("{} holds no private key in PEM form: {error}", files.key.display()))?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        format!("{} and {} cannot be used together: {error}", files.cert.display(), files.key.display())
    })?;
    // A resumed session would not be asked for its certificate again, which may have expired or been taken back.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(what: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = secret::read_public(what, file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} holds no certificate in PEM form", file.display())),
        Err(error) => Err(format!("{} cannot be read as PEM: {error}", file.display())),
    }
}

fn revoked(files: &Files) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let Some(file) = &files.client_crl else { return Ok(Vec::new()) };
    let pem = secret::read_public("the revocation list", file)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    match lists {
        Ok(lists) if !lists.is_empty() => Ok(lists),
        Ok(_) => Err(format!("{} holds no revocation list in PEM form", file.display())),
        Err(error) => Err(format!("{} cannot be read as PEM: {error}", file.display())),
    }
}
