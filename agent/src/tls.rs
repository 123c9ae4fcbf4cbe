//! TLS towards the hub: 1.2 or 1.3, and a hub that proves who it is, by an authority or by its very certificate.
//!
//! There is no way to look away. A pinned certificate replaces the authority and the name; that the hub has its key is
//! still proved by the signature in the handshake (RFC 8446, section 4.4.3; RFC 5246, section 7.4.3).

use std::sync::Arc;

use collector_common::root::Root;
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::connection::Connection;
use crate::credential::Source;

/// Reads the files of a connection.
///
/// # Errors
/// Which file, and what is wrong with it.
pub fn client_config(connection: &Connection, alpn: Option<&str>, root: &Root) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match connection.pinned_certificate {
        Some(sha256) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(PinnedCertificate { sha256, provider }))
        }
        None => builder.with_root_certificates(authorities(connection, root)?),
    };
    let mut config = match (&connection.cert_file, &connection.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let chain = certificates(cert_file, "the certificate", root)?;
            let key = PrivateKeyDer::from_pem_slice(&key_file.read_secret("the private key", root)?)
                .map_err(|error| format!("cannot read the private key {key_file}: {error}"))?;
            let made = builder.with_client_auth_cert(chain, key);
            made.map_err(|error| format!("{cert_file} and {key_file} do not make an identity: {error}"))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.map(|name| name.as_bytes().to_vec()).into_iter().collect();
    Ok(config)
}

fn authorities(connection: &Connection, root: &Root) -> Result<RootCertStore, String> {
    let file = connection
        .ca_file
        .as_ref()
        .ok_or("mqtts:// needs connection.caFile: the authorities the hub's certificate may be signed by")?;
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(file, "the CA file", root)? {
        let added = authorities.add(certificate);
        added.map_err(|error| format!("a certificate in {file} is not an authority: {error}"))?;
    }
    Ok(authorities)
}

fn certificates(file: &Source, what: &str, root: &Root) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = file.read(what, root)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(format!("{what} {file} holds no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("cannot read {what} {file}: {error}")),
    }
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct PinnedCertificate {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if digest::digest(&digest::SHA256, leaf).as_ref() == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
