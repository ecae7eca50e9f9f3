//! Signatures (format-spec 10): who may write is told from who can only read.
//!
//! The cipher is symmetric: who opens an object can seal another one that opens as well. So what is believed because it opened,
//! and what nothing else proves, has a signature within what is sealed, by a key that read-only keys lack: config, snapshots,
//! index segments, footers. Chunks need none: their ids prove them, and signed snapshots name those. Key objects need none: their
//! wrapping key is the secret of who opens them, and what they hold must fit the plain part of the config. Sessions and
//! retired lists need none: who only reads lacks their subkey.
//!
//! What is signed is a hash of everything that tells one object from another: the repository, the header with type and salt,
//! the plain extra part, and the bytes that are sealed. So no signature fits a second object. It lies inside the seal, and tells
//! nobody anything who can't open the object.

use std::sync::Arc;

use crate::crypto::{self, CryptoError, KEY_LEN, Purpose, SIGNATURE_LEN, Secret, SignatureError, SigningKey};
use crate::id::RepositoryId;

/// What the hash that is signed is for.
const SIGNATURE_CONTEXT: &str = "compline v1 signed object";

/// Tells what was signed for a repository by those who may write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifier {
    repository: RepositoryId,
    public: [u8; KEY_LEN],
}

impl Verifier {
    /// Of `repository`, whose public key is `public`.
    #[must_use]
    pub fn new(repository: RepositoryId, public: [u8; KEY_LEN]) -> Self {
        Self { repository, public }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; KEY_LEN] {
        self.public
    }

    fn digest(&self, front: &[u8], body: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(SIGNATURE_CONTEXT);
        hasher.update(self.repository.as_bytes()).update(front).update(body);
        *hasher.finalize().as_bytes()
    }

    /// What was signed, without the signature at its end; `front` is what lies before it in the object, in plain.
    ///
    /// # Errors
    /// When it is not signed, or not by who may write.
    pub fn verified<'b>(&self, front: &[u8], signed: &'b [u8]) -> Result<&'b [u8], SignatureError> {
        let (body, signature) = signed.split_last_chunk::<SIGNATURE_LEN>().ok_or(SignatureError)?;
        crypto::verify(&self.public, &self.digest(front, body), signature)?;
        Ok(body)
    }
}

/// Signs for a repository.
#[derive(Clone)]
pub struct Signer {
    verifier: Verifier,
    key: Arc<SigningKey>,
}

impl Signer {
    /// For `repository`, with the subkey for signatures.
    ///
    /// # Errors
    /// When the library refuses the private key; none is known for which it does.
    pub fn new(repository: RepositoryId, subkey: &Secret) -> Result<Self, CryptoError> {
        let key = SigningKey::from_seed(subkey)?;
        Ok(Self { verifier: Verifier::new(repository, key.public()), key: Arc::new(key) })
    }

    /// For `repository`, which `master` opens.
    ///
    /// # Errors
    /// As [`Signer::new`].
    pub fn of(repository: RepositoryId, master: &Secret) -> Result<Self, CryptoError> {
        Self::new(repository, &master.subkey(Purpose::Signature))
    }

    /// What others verify with.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.verifier
    }

    /// Appends the signature to `body`, which is going to be sealed behind `front`.
    pub fn sign(&self, front: &[u8], body: &mut Vec<u8>) {
        let signature = self.key.sign(&self.verifier.digest(front, body));
        body.extend_from_slice(&signature);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_fits_one_repository_one_front_and_one_body() {
        let signer = |repository: u8, key: u8| {
            Signer::new(RepositoryId::from_bytes([repository; 16]), &Secret::from_bytes([key; 32])).unwrap()
        };
        let (own, mut signed) = (signer(1, 1), b"body".to_vec());
        own.sign(b"front", &mut signed);
        assert_eq!(own.verifier().verified(b"front", &signed), Ok(b"body".as_slice()));
        for other in [signer(2, 1), signer(1, 2)] {
            assert!(other.verifier().verified(b"front", &signed).is_err());
        }
        assert!(own.verifier().verified(b"other", &signed).is_err());
        for byte in 0..signed.len() {
            let mut changed = signed.clone();
            changed[byte] ^= 1;
            assert!(own.verifier().verified(b"front", &changed).is_err());
            assert!(own.verifier().verified(b"front", &signed[..byte]).is_err());
        }
    }
}
