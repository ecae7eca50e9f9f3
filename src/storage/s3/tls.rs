//! Whom to trust: the authorities of the machine, and those of `ca=FILE` or `AWS_CA_BUNDLE`.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::super::{StorageError, StorageErrorKind};
use super::address::S3Address;
use super::credentials;

/// How connections to the server of `address` are made safe. Nothing is read for a server without TLS.
///
/// # Errors
/// When the file of certificates can't be read or has none.
pub(super) fn configuration(address: &S3Address) -> Result<ClientConfig, StorageError> {
    // The library builds a client of its own beside ours, which is never used and takes what the process has.
    let _set_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    let is_plain = address.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if !is_plain {
        // A certificate of the machine that can't be read is none; without any, every server is refused with the reason.
        let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let authorities = || credentials::variable("AWS_CA_BUNDLE").map(PathBuf::from).filter(|_| !is_plain);
    if let Some(path) = address.ca.clone().or_else(authorities) {
        add(&mut roots, &path)?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), StorageError> {
    let unusable = |why: &str| {
        StorageError::with_message(
            StorageErrorKind::Other,
            format!("The certificates in {} can't be used{why}", path.display()),
        )
        .advise("Name a file of certificates in PEM, with BEGIN CERTIFICATE, as ca=FILE in the location")
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|cause| unusable("").cause(cause))?;
    let mut count = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|cause| unusable("").cause(cause))?;
        roots.add(certificate).map_err(|cause| unusable("").cause(cause))?;
        count += 1;
    }
    if count == 0 { Err(unusable(": there are none")) } else { Ok(()) }
}
