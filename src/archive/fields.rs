//! Optional fields by number, at the end of entries and rows (format-spec 08): how the format grows without older
//! programs losing sight of everything else. A field with an even number may be passed over by those who don't know it,
//! and is kept when the thing is written again; one with an odd number must be understood.

use crate::codec::{Decoded, Reader, Writer};

/// Most fields of one thing.
pub const FIELD_COUNT_MAX: usize = 64;
/// Longest value of one field in bytes.
pub const FIELD_LEN_MAX: usize = 64 << 10;

/// Numbers and values, sorted by number, each number once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(Vec<(u64, Vec<u8>)>);

impl Fields {
    /// Sets field `number`.
    pub fn set(&mut self, number: u64, value: Vec<u8>) {
        match self.0.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (number, value)),
        }
    }

    /// Takes field `number` out.
    pub fn take(&mut self, number: u64) -> Option<Vec<u8>> {
        let at = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.0.remove(at).1)
    }

    /// Numbers and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.iter().map(|(number, value)| (*number, value.as_slice()))
    }

    /// Appends the encoding.
    pub fn encode(&self, w: &mut Writer) {
        w.varint(self.0.len() as u64);
        for (number, value) in &self.0 {
            w.varint(*number).counted_bytes(value);
        }
    }

    /// Reads fields off the front. `known` says which numbers the caller understands.
    ///
    /// # Errors
    /// On wrong order, a number twice, too many or too long ones, and on odd numbers that the caller does not know.
    pub fn decode(r: &mut Reader<'_>, known: impl Fn(u64) -> bool) -> Decoded<Self> {
        let count = r.varint_at_most(FIELD_COUNT_MAX as u64, "too many fields")?;
        let mut fields: Vec<(u64, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let number = r.varint()?;
            if fields.last().is_some_and(|(last, _)| *last >= number) {
                return Err(r.error("fields not sorted"));
            }
            if number % 2 == 1 && !known(number) {
                return Err(r.error("unknown field that must be understood"));
            }
            fields.push((number, r.counted_bytes(FIELD_LEN_MAX, "field too long")?.to_vec()));
        }
        Ok(Self(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(fields: &[(u64, &[u8])]) -> Vec<u8> {
        let mut w = Writer::new();
        Fields(fields.iter().map(|(number, value)| (*number, value.to_vec())).collect()).encode(&mut w);
        w.into_bytes()
    }

    #[test]
    fn unknown_even_fields_are_kept_and_odd_ones_refused() {
        let bytes = encoded(&[(2, b"a"), (4, b"")]);
        let fields = Fields::decode(&mut Reader::new(&bytes), |_| false).unwrap();
        assert!(fields.iter().eq([(2, b"a".as_slice()), (4, b"".as_slice())]));
        let odd = encoded(&[(3, b"a")]);
        let error = Fields::decode(&mut Reader::new(&odd), |_| false).unwrap_err();
        assert!(error.is_newer());
        assert!(Fields::decode(&mut Reader::new(&odd), |number| number == 3).is_ok());
    }

    #[test]
    fn a_number_twice_is_refused() {
        let bytes = encoded(&[(2, b"a"), (2, b"a")]);
        assert!(Fields::decode(&mut Reader::new(&bytes), |_| true).is_err());
    }

    #[test]
    fn fields_are_set_and_taken_by_number() {
        let mut fields = Fields::default();
        for number in [8, 2, 4, 2] {
            fields.set(number, vec![u8::try_from(number).unwrap()]);
        }
        assert!(fields.iter().map(|(number, _)| number).eq([2, 4, 8]));
        assert_eq!(fields.take(4), Some(vec![4]));
        assert_eq!(fields.take(4), None);
    }
}
