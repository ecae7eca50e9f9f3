//! Keys, sealing, key derivation (format-spec 10). The only user of the cipher and of the password hash.
//!
//! One master key opens a repository. From it come subkeys, one for each [`Purpose`], by BLAKE3 key derivation. The
//! header of each sealed object holds 32 random bytes of salt; the key that seals the object is the keyed BLAKE3 of the
//! header under the subkey. A key therefore seals one object only, and within an object the nonce is a position that occurs once: no nonce ever
//! repeats, and no state has to be kept to ensure it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of all keys and salts.
pub const KEY_LEN: usize = 32;
/// What sealing adds to a plain text.
pub const TAG_LEN: usize = 16;
/// Length of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// Sealed bytes did not open: wrong key, or not the bytes that were sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct OpenError;

/// A signature is missing, or is of other bytes or by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not signed by somebody who may write to the repository")]
pub struct SignatureError;

/// A key could not be derived or random bytes could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CryptoError(String);

/// 32 secret bytes, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; KEY_LEN]);

impl Secret {
    /// Wraps bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Fresh random bytes.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn random() -> Result<Self, CryptoError> {
        Ok(Self(random()?))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The subkey for `purpose`; `self` being a master key.
    #[must_use]
    pub fn subkey(&self, purpose: Purpose) -> Self {
        Self(blake3::derive_key(purpose.context(), &self.0))
    }

    /// The key that seals the one object with this header, salt and all; `self` being a subkey. Type, version, key slot
    /// and detail are in it as well: an object that is passed off as another one does not open.
    #[must_use]
    pub fn object_key(&self, header: &[u8]) -> SealKey {
        let mut key = *blake3::keyed_hash(&self.0, header).as_bytes();
        let sealer = SealKey::new(&key);
        key.zeroize();
        sealer
    }

    /// 32 bytes bound to `label`, for uses outside the format.
    #[must_use]
    pub fn derive(&self, label: &str) -> [u8; KEY_LEN] {
        *blake3::keyed_hash(&self.0, label.as_bytes()).as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What a subkey is for. Keys with fewer rights hold some of them: those to write with or those to read with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Chunk ids.
    ChunkId,
    /// The gear table that decides where content is cut.
    Chunker,
    /// Frames of content packs.
    Content,
    /// Frames of tree packs.
    Tree,
    /// Footers and index segments.
    Index,
    /// Config body and snapshots.
    Record,
    /// Sessions and retired lists.
    Session,
    /// The private key to which hosts seal that can't read.
    Deposit,
    /// Secrets that components ask for.
    Component,
    /// The private key that signs, which those who only read lack.
    Signature,
}

impl Purpose {
    /// The context string of the derivation (format-spec 10).
    #[must_use]
    pub fn context(self) -> &'static str {
        match self {
            Self::ChunkId => "compline v1 chunk id",
            Self::Chunker => "compline v1 chunker gear",
            Self::Content => "compline v1 content frames",
            Self::Tree => "compline v1 tree frames",
            Self::Index => "compline v1 index",
            Self::Record => "compline v1 records",
            Self::Session => "compline v1 sessions",
            Self::Deposit => "compline v1 deposits",
            Self::Component => "compline v1 component secrets",
            Self::Signature => "compline v1 signatures",
        }
    }
}

/// Seals and opens the parts of one object.
pub struct SealKey(LessSafeKey);

impl SealKey {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
        Self(LessSafeKey::new(key))
    }

    /// Seals `bytes` in place and appends the tag. `position` must occur once under this key.
    pub fn seal(&self, position: u64, aad: &[u8], bytes: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(nonce(position), Aad::from(aad), bytes)
            .expect("only texts beyond 64 GiB are refused");
    }

    /// Opens `bytes` in place; the plain text is the front of it.
    ///
    /// # Errors
    /// When a single bit of `bytes`, `aad`, the position or the key differs.
    pub fn open<'b>(&self, position: u64, aad: &[u8], bytes: &'b mut [u8]) -> Result<&'b mut [u8], OpenError> {
        self.0.open_in_place(nonce(position), Aad::from(aad), bytes).map_err(|_| OpenError)
    }
}

fn nonce(position: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&position.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// `N` random bytes, straight from the system: the cipher's own generator first gathers jitter of the clock in each
/// process, which takes 30 ms, ten times as long as all else that a short command does.
///
/// # Errors
/// When the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|cause| CryptoError(format!("The system gives no random bytes: {cause}")))?;
    Ok(bytes)
}

/// Cost of turning a passphrase into a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassphraseCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PassphraseCost {
    /// What new keys get: 64 MiB and three passes, RFC 9106's second choice with one lane. About 0.13 s; why not more is in
    /// decision passphrase-cost.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// What a key object may ask for at most: 4 GiB, 64 passes, 64 lanes.
    pub const MAX: Self = Self { memory_kib: 4 * 1024 * 1024, passes: 64, lanes: 64 };
    /// No passphrase, no work.
    pub const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };

    /// Whether a key object may ask for it: what Argon2 needs at least, and [`PassphraseCost::MAX`].
    #[must_use]
    pub fn is_allowed(self) -> bool {
        let max = Self::MAX;
        (1..=max.lanes).contains(&self.lanes)
            && (1..=max.passes).contains(&self.passes)
            && (8 * self.lanes..=max.memory_kib).contains(&self.memory_kib)
    }
}

/// Argon2id of a passphrase.
///
/// # Errors
/// On costs that the algorithm or [`PassphraseCost::MAX`] forbids, and when memory is short.
pub fn passphrase_key(passphrase: &[u8], salt: &[u8; KEY_LEN], cost: PassphraseCost) -> Result<Secret, CryptoError> {
    if !cost.is_allowed() {
        return Err(CryptoError("The key object asks for an absurd amount of work".to_owned()));
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_LEN))
        .map(|params| argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params))
        .and_then(|argon| argon.hash_password_into(passphrase, salt, key.as_mut_slice()))
        .map_err(|cause| CryptoError(format!("The passphrase can't be turned into a key: {cause}")))?;
    Ok(Secret(*key))
}

/// The key for the 32 random bytes of a key file: no slow derivation is needed.
#[must_use]
pub fn key_file_key(file_key: &Secret, salt: &[u8; KEY_LEN]) -> Secret {
    Secret(*blake3::keyed_hash(&blake3::derive_key("compline v1 key file", &file_key.0), salt).as_bytes())
}

/// The first digits of the SHA-256 of `bytes`: what every computer can check without compline.
#[must_use]
pub fn sha256_start(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    crate::id::to_hex(digest.as_ref().get(..4).unwrap_or_default())
}

/// The X25519 public key of a private one.
///
/// # Errors
/// When the library refuses; no private key is known to make it.
pub fn public_key(private: &Secret) -> Result<[u8; KEY_LEN], CryptoError> {
    let refused = || CryptoError("X25519 refused the private key".to_owned());
    let private = agreement::PrivateKey::from_private_key(&agreement::X25519, &private.0).map_err(|_| refused())?;
    let public = private.compute_public_key().map_err(|_| refused())?;
    public.as_ref().try_into().map_err(|_| refused())
}

/// What the holder of `private` shares with the holder of the private key of `public`, as a key for `purpose`; bound to
/// both public keys, of which `sender` was drawn for this one use and `recipient` is known.
///
/// # Errors
/// When `public` is none that a private key can have.
pub fn shared_key(
    purpose: &str,
    private: &Secret,
    sender: &[u8; KEY_LEN],
    recipient: &[u8; KEY_LEN],
) -> Result<Secret, CryptoError> {
    let refused = || CryptoError("X25519 refused the public key".to_owned());
    let own = public_key(private)?;
    let other = if own == *sender { recipient } else { sender };
    let private = agreement::PrivateKey::from_private_key(&agreement::X25519, &private.0).map_err(|_| refused())?;
    let other = agreement::UnparsedPublicKey::new(&agreement::X25519, other);
    agreement::agree(&private, other, refused(), |shared| {
        let mut material = Zeroizing::new(Vec::with_capacity(3 * KEY_LEN));
        material.extend_from_slice(shared);
        material.extend_from_slice(sender);
        material.extend_from_slice(recipient);
        Ok(Secret(blake3::derive_key(purpose, &material)))
    })
}

/// Signs by Ed25519 (RFC 8032).
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key of these 32 secret bytes.
    ///
    /// # Errors
    /// When the library refuses; no bytes are known to make it.
    pub fn from_seed(seed: &Secret) -> Result<Self, CryptoError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed.0);
        pair.map(Self).map_err(|cause| CryptoError(format!("Ed25519 refused the private key: {cause}")))
    }

    /// What others verify with.
    #[must_use]
    pub fn public(&self) -> [u8; KEY_LEN] {
        self.0.public_key().as_ref().try_into().expect("public keys of Ed25519 have 32 bytes")
    }

    /// The signature of `message`; the same each time.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).as_ref().try_into().expect("signatures of Ed25519 have 64 bytes")
    }
}

/// Whether `signature` is that of `message` by the holder of the private key of `public`.
///
/// # Errors
/// When it is not.
pub fn verify(public: &[u8; KEY_LEN], message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).map_err(|_| SignatureError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ed25519_is_that_of_rfc_8032_and_every_other_signature_is_refused() {
        let seed = crate::id::from_hex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7").unwrap();
        let key = SigningKey::from_seed(&Secret::from_bytes(seed)).unwrap();
        let public = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
        assert_eq!(crate::id::to_hex(&key.public()), public);
        let signature = key.sign(&[0xaf, 0x82]);
        assert_eq!(crate::id::to_hex(&signature[..16]), "6291d657deec24024827e69c3abe01a3");
        assert_eq!(verify(&key.public(), &[0xaf, 0x82], &signature), Ok(()));
        for bit in 0..SIGNATURE_LEN * 8 {
            let mut other = signature;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&key.public(), &[0xaf, 0x82], &other).is_err(), "bit {bit}");
        }
        assert!(verify(&key.public(), &[0xaf], &signature).is_err());
        assert!(verify(&key.public(), &[0xaf, 0x82], &signature[..63]).is_err());
        assert!(verify(&[0; 32], &[0xaf, 0x82], &signature).is_err());
    }

    #[test]
    fn opening_with_another_position_or_other_associated_data_fails() {
        let key = Secret::from_bytes([7; 32]).object_key(&[1; 32]);
        let mut sealed = b"plain".to_vec();
        key.seal(44, b"aad", &mut sealed);
        assert_eq!(sealed.len(), 5 + TAG_LEN);
        assert!(key.open(45, b"aad", &mut sealed.clone()).is_err());
        assert!(key.open(44, b"aae", &mut sealed.clone()).is_err());
        assert_eq!(key.open(44, b"aad", &mut sealed).expect("it is what was sealed"), b"plain");
    }

    #[test]
    fn an_absurd_cost_is_refused_before_any_work() {
        let cost = PassphraseCost { memory_kib: u32::MAX, passes: 1, lanes: 1 };
        assert!(passphrase_key(b"x", &[0; 32], cost).is_err());
    }

    #[test]
    fn x25519_is_that_of_rfc_7748_and_both_sides_get_the_same_key() {
        let bytes = |text: &str| crate::id::from_hex::<32>(text).unwrap();
        let alice = Secret::from_bytes(bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = Secret::from_bytes(bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        let (to, from) = (public_key(&alice).unwrap(), public_key(&bob).unwrap());
        assert_eq!(to, bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        assert_eq!(from, bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let one = shared_key("test", &bob, &from, &to).unwrap();
        assert_eq!(one.as_bytes(), shared_key("test", &alice, &from, &to).unwrap().as_bytes());
        assert!(shared_key("test", &bob, &from, &[0; 32]).is_err(), "a point of small order");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_opens(plain in proptest::collection::vec(any::<u8>(), 0..200), bit: usize) {
            let key = Secret::from_bytes([9; 32]).object_key(&[2; 32]);
            let mut sealed = plain.clone();
            key.seal(0, b"", &mut sealed);
            let bit = bit % (sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(key.open(0, b"", &mut sealed).is_err());
        }
    }
}
