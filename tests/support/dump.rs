//! The dump of a table, night after night: most rows are as they were, a few changed anywhere, went and came.

use std::io::Write as _;

/// Rows of a table: number and version.
#[derive(Clone)]
pub struct Dump {
    rows: Vec<(u64, u64)>,
    next: u64,
    random: u64,
}

impl Dump {
    /// A table of so many rows of about 160 bytes. Tables of different seeds have no row in common.
    pub fn new(seed: u64, count: u64) -> Self {
        let first = seed << 32;
        Self { rows: (first..first + count).map(|row| (row, 0)).collect(), next: first + count, random: seed }
    }

    /// A number below `end`, another one each time.
    fn random(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_add(1);
        let hash = blake3::hash(&self.random.to_le_bytes());
        let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
        usize::try_from(number % end as u64).unwrap()
    }

    /// A day passes: one row in a hundred changes, one in a thousand goes, three in a thousand come.
    pub fn pass_day(&mut self) {
        let count = self.rows.len();
        for _ in 0..count.div_ceil(100) {
            let at = self.random(count);
            self.rows[at].1 += 1;
        }
        for _ in 0..count.div_ceil(1000) {
            let at = self.random(self.rows.len());
            self.rows.remove(at);
        }
        for _ in 0..(count * 3).div_ceil(1000) {
            self.rows.push((self.next, 0));
            self.next += 1;
        }
    }

    /// The table after so many days.
    pub fn after(mut self, days: u64) -> Self {
        for _ in 0..days {
            self.pass_day();
        }
        self
    }

    /// What a dump of it says.
    pub fn text(&self) -> Vec<u8> {
        let mut text = b"-- a dump of a table\n".to_vec();
        for (row, version) in &self.rows {
            let words = blake3::hash(&[row.to_le_bytes(), version.to_le_bytes()].concat()).to_hex();
            let (name, note) = (&words[..12], &words[12..40]);
            let group = row % 9973;
            writeln!(text, "{row}\t{name}\tcustomer{group}@example.org\t{version:>10}\t{note}\t2026-01-01 00:00:00+00\tlorem ipsum dolor sit amet {}\t\\N", row % 31).unwrap();
        }
        text
    }
}
