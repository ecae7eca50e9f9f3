//! Whom to trust: the authorities of the machine, and those of a file that is named.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::super::{StorageError, StorageErrorKind};

/// How connections are made safe; `ca` is a file of more authorities to trust. Nothing of the machine is read for a server
/// without TLS.
///
/// # Errors
/// When the file of certificates can't be read or has none.
pub(in crate::storage) fn configuration(is_plain: bool, ca: Option<&Path>) -> Result<ClientConfig, StorageError> {
    // The library for S3 builds a client of its own beside ours, which is never used and takes what the process has.
    let _set_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    if !is_plain {
        // A certificate of the machine that can't be read is none; without any, every server is refused with the reason.
        let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if let Some(path) = ca {
        add(&mut roots, path)?;
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
