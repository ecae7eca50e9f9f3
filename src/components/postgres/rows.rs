//! Counting the rows in a plain dump while it goes by.
//!
//! The marker at its end proves that a dump was written to its end, not that nothing was lost on the way. The server
//! knows how many rows each table had in the dump's snapshot; this is the other side of that comparison.
//!
//! ```text
//! --
//! -- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: app
//! --
//!
//! COPY public.t (id, v) FROM stdin;
//! 1       one                          newlines in values are written as \n: one line is one row
//! \.
//! ```
//! A `COPY` counts only with the comment above it, so that text which merely looks like one doesn't.

use std::collections::BTreeMap;

use memchr::memmem::Finder;

use super::catalog::Rows;
use super::globals::take_identifier;

/// Longest line outside of rows that is looked at; the rest of a longer one is passed over.
const LINE_LEN_MAX: usize = 1 << 20;
/// The end of the rows, with the line feed before it.
const END: &[u8] = b"\n\\.\n";
/// The comment stands three lines above its `COPY`.
const COMMENT_AGE_MAX: u32 = 3;

/// Reads a dump piece by piece.
#[derive(Debug)]
pub struct RowCounter {
    rows: Rows,
    /// The present line, as far as it came, outside of rows.
    line: Vec<u8>,
    /// Lines since the comment that announces rows.
    comment_age: u32,
    /// The table whose rows are going by.
    table: Option<Copying>,
    end: Finder<'static>,
}

#[derive(Debug)]
struct Copying {
    schema: String,
    table: String,
    count: u64,
    /// The last bytes, at most one less than [`END`] has; the line feed of the `COPY` line at first.
    last: Vec<u8>,
}

impl Default for RowCounter {
    fn default() -> Self {
        Self {
            rows: Rows::new(),
            line: Vec::new(),
            comment_age: u32::MAX,
            table: None,
            end: Finder::new(END).into_owned(),
        }
    }
}

impl RowCounter {
    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = if self.table.is_some() { self.push_rows(bytes) } else { self.push_line(bytes) };
            bytes = &bytes[taken..];
        }
    }

    /// The number of rows of every table that had any.
    pub fn finish(self) -> Rows {
        self.rows
    }

    /// Takes up to the end of the present line.
    fn push_line(&mut self, bytes: &[u8]) -> usize {
        let feed = memchr::memchr(b'\n', bytes);
        let part = &bytes[..feed.unwrap_or(bytes.len())];
        let room = LINE_LEN_MAX.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        if feed.is_some() {
            let line = std::mem::take(&mut self.line);
            self.look_at(&line);
            self.line = line;
            self.line.clear();
        }
        feed.map_or(bytes.len(), |feed| feed + 1)
    }

    fn look_at(&mut self, line: &[u8]) {
        self.comment_age = self.comment_age.saturating_add(1);
        if line.starts_with(b"-- Data for Name: ") {
            self.comment_age = 0;
        } else if self.comment_age <= COMMENT_AGE_MAX
            && let Some((schema, table)) = copied_table(line)
        {
            self.table = Some(Copying { schema, table, count: 0, last: vec![b'\n'] });
        }
    }

    /// Takes up to the end of the rows.
    fn push_rows(&mut self, bytes: &[u8]) -> usize {
        let Some(copying) = &mut self.table else { return 0 };
        // The end may lie across the seam: look at the seam by itself.
        let before = copying.last.len();
        let mut seam = copying.last.clone();
        seam.extend_from_slice(&bytes[..bytes.len().min(END.len() - 1)]);
        let end = self.end.find(&seam).map(|at| (at + END.len()).saturating_sub(before));
        let end = end.or_else(|| self.end.find(bytes).map(|at| at + END.len()));
        let taken = end.unwrap_or(bytes.len());
        copying.count += memchr::memchr_iter(b'\n', &bytes[..taken]).count() as u64;
        if end.is_some() {
            // The line of the end itself was counted as well.
            let count = copying.count - 1;
            let tables = self.rows.entry(std::mem::take(&mut copying.schema)).or_default();
            tables.insert(std::mem::take(&mut copying.table), count);
            (self.table, self.comment_age) = (None, u32::MAX);
        } else {
            copying.last.extend_from_slice(&bytes[bytes.len().saturating_sub(END.len() - 1)..]);
            let surplus = copying.last.len().saturating_sub(END.len() - 1);
            copying.last.drain(..surplus);
        }
        taken
    }
}

/// Schema and table of `COPY schema.table (columns) FROM stdin;`.
fn copied_table(line: &[u8]) -> Option<(String, String)> {
    let line = std::str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Into::into);
    let (schema, rest) = take_identifier(line.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")?);
    let (table, _) = take_identifier(rest.strip_prefix('.')?);
    Some((schema, table))
}

/// The first table of which the dump doesn't hold the rows that the server counted. The server names tables in UTF-8, a
/// dump in the encoding of its database: where that is another, only plain names can be compared.
pub fn difference(counted: &Rows, dumped: &Rows, is_utf8: bool) -> Option<String> {
    let none = BTreeMap::new();
    for (schema, tables) in counted {
        let there = dumped.get(schema).unwrap_or(&none);
        for (table, rows) in tables {
            let found = there.get(table).copied().unwrap_or(0);
            let comparable = is_utf8 || (schema.is_ascii() && table.is_ascii());
            if comparable && found != *rows {
                return Some(format!("table {schema}.{table} has {rows} rows, its dump {found}"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DUMP: &str = "--\n-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: app\n--\n\n\
                        COPY public.t (id, v) FROM stdin;\n1\tone\n2\t\\\\.\n3\tCOPY public.u (x) FROM stdin;\n\\.\n\n\n\
                        --\n-- Data for Name: Odd; Type: TABLE DATA; Schema: S; Owner: app\n--\n\n\
                        COPY \"S.x\".\"Odd \"\" name\" (a) FROM stdin;\n\\.\n\n\n\
                        CREATE FUNCTION public.f() RETURNS text AS $$\nCOPY public.v (x) FROM stdin;\n$$;\n\
                        --\n-- PostgreSQL database dump complete\n--\n\n";

    fn count(dump: &[u8], cuts: &[usize]) -> Rows {
        let mut counter = RowCounter::default();
        let mut at = 0;
        for cut in cuts {
            let cut = (*cut).clamp(at, dump.len());
            counter.push(&dump[at..cut]);
            at = cut;
        }
        counter.push(&dump[at..]);
        counter.finish()
    }

    fn expected() -> Rows {
        let one = |table: &str, rows| BTreeMap::from([(table.to_owned(), rows)]);
        Rows::from([("public".to_owned(), one("t", 3)), ("S.x".to_owned(), one("Odd \" name", 0))])
    }

    #[test]
    fn rows_are_counted_and_what_only_looks_like_them_is_not() {
        assert_eq!(count(DUMP.as_bytes(), &[]), expected());
    }

    #[test]
    fn rows_that_break_off_count_as_none() {
        let cut = DUMP.find("3\tCOPY").unwrap();
        assert_eq!(count(&DUMP.as_bytes()[..cut], &[]), Rows::new());
    }

    #[test]
    fn a_difference_names_the_table_and_both_numbers() {
        assert_eq!(difference(&expected(), &expected(), true), None);
        assert_eq!(difference(&expected(), &Rows::new(), true).unwrap(), "table public.t has 3 rows, its dump 0");
        assert_eq!(difference(&Rows::new(), &expected(), true), None, "tables of extensions are not counted");
    }

    #[test]
    fn names_in_a_foreign_encoding_are_not_compared() {
        let counted = Rows::from([("public".to_owned(), BTreeMap::from([("grün".to_owned(), 1)]))]);
        assert!(difference(&counted, &Rows::new(), true).is_some());
        assert_eq!(difference(&counted, &Rows::new(), false), None);
    }

    proptest! {
        #[test]
        fn counts_do_not_depend_on_how_the_dump_is_cut(mut cuts in prop::collection::vec(0..DUMP.len(), 0..40)) {
            cuts.sort_unstable();
            prop_assert_eq!(count(DUMP.as_bytes(), &cuts), expected());
        }
    }
}
