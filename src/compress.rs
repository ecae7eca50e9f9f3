//! zstd with a declared bound on what comes out. Contexts are kept by thread: making one costs more than a small frame.

mod probe;

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

/// Level for whole chunks and records: above it time grows faster than the repository shrinks.
pub const LEVEL: i32 = 3;

/// Bytes are not what zstd wrote, or more comes out than was declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't be decompressed: {0}")]
pub struct DecompressError(String);

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

pub use probe::may_compress;

/// `plain` as one zstd frame at [`LEVEL`], or none if it doesn't get smaller, as far as [`may_compress`] can tell beforehand.
#[must_use]
pub fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    compress_at(LEVEL, plain)
}

/// The same at another level.
#[must_use]
pub fn compress_at(level: i32, plain: &[u8]) -> Option<Vec<u8>> {
    if !may_compress(plain) {
        return None;
    }
    always_compress(level, plain).filter(|packed| packed.len() < plain.len())
}

/// `plain` as one zstd frame, however long.
#[must_use]
pub fn always_compress(level: i32, plain: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => {
                compressor.set_compression_level(level).ok()?;
                compressor
            }
            None => slot.insert(Compressor::new(level).ok()?),
        };
        compressor.compress(plain).ok()
    })
}

/// The `plain_len` bytes that `packed` stands for.
///
/// # Errors
/// When it is no zstd frame, or holds more or less than `plain_len` bytes.
pub fn decompress(packed: &[u8], plain_len: usize) -> Result<Vec<u8>, DecompressError> {
    let mut plain = Vec::with_capacity(plain_len);
    decompress_into(packed, plain_len, &mut plain)?;
    Ok(plain)
}

/// The same into a buffer that is used again; what it held is lost.
///
/// # Errors
/// As [`decompress`].
pub fn decompress_into(packed: &[u8], plain_len: usize, plain: &mut Vec<u8>) -> Result<(), DecompressError> {
    plain.clear();
    plain.reserve_exact(plain_len);
    let len = DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new().map_err(error)?);
        }
        slot.as_mut().expect("set above").decompress_to_buffer(packed, plain).map_err(error)
    })?;
    if len == plain_len { Ok(()) } else { Err(DecompressError(format!("{len} bytes instead of {plain_len}"))) }
}

/// What `packed` stands for, at most `len_max` bytes.
///
/// # Errors
/// When it is no zstd frame, or holds more.
pub fn decompress_up_to(packed: &[u8], len_max: usize) -> Result<Vec<u8>, DecompressError> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Decompressor::new().map_err(error)?);
        }
        slot.as_mut().expect("set above").decompress(packed, len_max).map_err(error)
    })
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn error(cause: std::io::Error) -> DecompressError {
    DecompressError(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bomb_stops_at_the_declared_length() {
        let bomb = compress(&vec![0; 1 << 20]).expect("zeros get smaller");
        assert!(decompress(&bomb, 1000).is_err());
        assert!(decompress(&bomb, (1 << 20) + 1).is_err());
        assert!(decompress(b"no frame", 8).is_err());
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(seed in proptest::collection::vec(0u8..4, 0..5000)) {
            if let Some(packed) = compress(&seed) {
                prop_assert_eq!(decompress(&packed, seed.len()).ok(), Some(seed));
            }
        }
    }
}
