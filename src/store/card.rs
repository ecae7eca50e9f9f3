//! The card of a key (format-spec 10): what it is called and when it was made, for everybody who may read the repository.
//!
//! Only its holder opens the body of a key object. So that others can tell which key is whose, and which to remove, each object has
//! a card behind its body. It is sealed under the subkey of records: the storage learns nothing of it, nor do hosts with write-only
//! keys. It is signed, and with it everything that lies before it in the object: it takes both subkeys to make one, which only holders
//! of full keys have, and a card fits no second object. Whoever may add objects can put something there that looks like a key; it has
//! no card, and is told.
//!
//! All cards are of one length, so that nobody learns how long a label is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::envelope::HEADER_LEN;
use super::parity;
use super::rights::Rights;
use super::signature::{Signer, Verifier};
use crate::crypto::{SIGNATURE_LEN, Secret, TAG_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::id::RepositoryId;

/// Length of what a card says, with blanks at its end.
pub const PLAIN_LEN: usize = 256;
/// Length of a card in an object.
pub const CARD_LEN: usize = PLAIN_LEN + SIGNATURE_LEN + TAG_LEN;

/// What people know a key by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// What the operator called it.
    pub label: String,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Card {
    /// Appends it to a key object that ends with its body. `records` is the subkey that readers have.
    ///
    /// # Errors
    /// `Usage` when the label is too long.
    pub fn append_to(&self, object: &mut Vec<u8>, records: &Secret, signer: &Signer) -> Result<()> {
        let mut plain = serde_json::to_vec(self).expect("plain fields always serialize");
        if plain.len() > PLAIN_LEN {
            return Err(Error::new(ErrorKind::Usage, "The label of the key is too long")
                .hint("Some words are enough, up to about 200 bytes"));
        }
        plain.resize(PLAIN_LEN, b' ');
        signer.sign(object, &mut plain);
        let key = records.object_key(&object[..HEADER_LEN]);
        key.seal(object.len() as u64, object, &mut plain);
        object.append(&mut plain);
        Ok(())
    }
}

/// Reads cards.
pub struct CardReader {
    records: Secret,
    verifier: Verifier,
}

impl CardReader {
    /// Of keys of `repository`. None for who can't read.
    #[must_use]
    pub fn new(repository: RepositoryId, rights: &Rights) -> Option<Self> {
        let records = rights.read()?.record.clone();
        Some(Self { records, verifier: Verifier::new(repository, rights.public) })
    }

    /// The card of a key object. None if nobody made it who may.
    #[must_use]
    pub fn read(&self, object: &[u8]) -> Option<Card> {
        let data = parity::data_of(object).ok()?;
        let (front, card) = data.split_at_checked(data.len().checked_sub(CARD_LEN)?)?;
        let key = self.records.object_key(front.get(..HEADER_LEN)?);
        let mut card = card.to_vec();
        let signed = key.open(front.len() as u64, front, &mut card).ok()?;
        let plain = self.verifier.verified(front, signed).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Purpose;
    use crate::store::parity::Share;

    const REPOSITORY: RepositoryId = RepositoryId::from_bytes([1; 16]);

    fn card(label: &str) -> Card {
        Card { label: label.to_owned(), created_at: Timestamp::UNIX_EPOCH }
    }

    fn reader(of: RepositoryId) -> CardReader {
        CardReader::new(of, &Rights::all(master()).unwrap()).unwrap()
    }

    fn master() -> Secret {
        Secret::from_bytes([42; 32])
    }

    /// An object with a card that was made with these two subkeys.
    fn object(front: &[u8], records: &Secret, signing: &Secret) -> Vec<u8> {
        let mut object = front.to_vec();
        let signer = Signer::new(REPOSITORY, signing).unwrap();
        card("web1").append_to(&mut object, records, &signer).unwrap();
        parity::protect(&mut object, 0, Share::RECORD);
        object
    }

    #[test]
    fn it_takes_both_subkeys_to_make_a_card() {
        let (records, signing) = (master().subkey(Purpose::Record), master().subkey(Purpose::Signature));
        let other = Secret::from_bytes([7; 32]);
        assert_eq!(reader(REPOSITORY).read(&object(&[3; 100], &records, &signing)), Some(card("web1")));
        // Of a reader, of a host that only writes, and of nobody.
        for (records, signing) in [(&records, &other), (&other, &signing), (&other, &other)] {
            assert_eq!(reader(REPOSITORY).read(&object(&[3; 100], records, signing)), None);
        }
    }

    #[test]
    fn a_card_fits_one_object_of_one_repository() {
        let (records, signing) = (master().subkey(Purpose::Record), master().subkey(Purpose::Signature));
        let made = object(&[3; 100], &records, &signing);
        assert_eq!(reader(RepositoryId::from_bytes([2; 16])).read(&made), None);
        for at in 0..100 + CARD_LEN {
            let mut changed = made.clone();
            changed[at] ^= 1;
            assert_eq!(reader(REPOSITORY).read(&changed), None, "byte {at}");
        }
    }

    #[test]
    fn all_cards_are_of_one_length_and_what_does_not_fit_is_refused() {
        let signer = Signer::of(REPOSITORY, &master()).unwrap();
        let made = |label: &str| {
            let mut object = vec![3; 100];
            card(label).append_to(&mut object, &master(), &signer).map(|()| object.len() - 100)
        };
        for label in ["", "web1", &"x".repeat(200)] {
            assert_eq!(made(label).unwrap(), CARD_LEN);
        }
        assert_eq!(made(&"x".repeat(250)).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn reading_is_total() {
        for len in [0, 20, 44, 100, CARD_LEN, CARD_LEN + 20, 1000] {
            let mut object = vec![0; len];
            assert_eq!(reader(REPOSITORY).read(&object), None);
            parity::protect(&mut object, 0, Share::RECORD);
            assert_eq!(reader(REPOSITORY).read(&object), None);
        }
    }
}
