//! Seeded corpora, the same on every machine. Each has a description that the benches print.

#![allow(dead_code, reason = "every bench uses a part of it")]

/// `len` bytes that don't compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// About `len` bytes that look like a plain SQL dump: rows with a number, words, a hash and a time.
pub fn dump(len: usize, seed: u64) -> Vec<u8> {
    const WORDS: [&str; 12] =
        ["compline", "snapshot", "lorem", "ipsum", "order", "paid", "open", "berlin", "lisbon", "blue", "row", "night"];
    let mut bytes = Vec::with_capacity(len + 200);
    let mut row = 0u64;
    let noise = noise(len / 4 + 64, seed);
    while bytes.len() < len {
        let at = usize::try_from(row * 13).unwrap_or(0) % (noise.len() - 32);
        bytes.extend_from_slice(format!("{row}\t").as_bytes());
        for byte in &noise[at..at + 6] {
            bytes.extend_from_slice(WORDS[usize::from(*byte) % WORDS.len()].as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(compline::id::to_hex(&noise[at + 6..at + 14]).as_bytes());
        bytes.extend_from_slice(b"\t2026-01-02 03:04:05\n");
        row += 1;
    }
    bytes.truncate(len);
    bytes
}

/// Changes about one row in a hundred, spread over the whole dump.
pub fn next_night(dump: &[u8]) -> Vec<u8> {
    let mut next = dump.to_vec();
    for start in (0..next.len().saturating_sub(16)).step_by(10_000) {
        next[start..start + 8].copy_from_slice(b"changed!");
    }
    next
}

/// Writes `count` files of 1 to 16 KiB of text into directories of 100.
pub fn tree(root: &std::path::Path, count: usize) -> std::io::Result<()> {
    let text = dump(4 << 20, 7);
    for n in 0..count {
        let directory = root.join(format!("d{:04}", n / 100));
        if n % 100 == 0 {
            std::fs::create_dir_all(&directory)?;
        }
        let (start, len) = ((n * 7919) % (3 << 20), 1024 + (n * 613) % 15_000);
        std::fs::write(directory.join(format!("f{n:06}.txt")), &text[start..start + len])?;
    }
    Ok(())
}
