//! Taking out of a dump what differs each night although nothing changed, where what is left restores the same.
//!
//! A fixed set, named in the plan: each knows one program's output, touches nothing that doesn't look exactly so, and
//! says afterwards whether it found it. The names of those that did are recorded in the snapshot.

use memchr::memmem::Finder;

use crate::components::process::Rewrite;
use crate::error::Result;
use crate::id::to_hex;
use crate::settings::{Settings, did_you_mean, listing};

/// How much of the beginning is searched for a key, and how much of the end is held back for a date.
const END_LEN: usize = 4096;
/// `psql` takes at most 63 letters and digits; the digits of a hash are enough.
const KEY_LEN_MAX: usize = 63;
const NEW_KEY_LEN: usize = 60;

/// What volatile bytes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normaliser {
    /// The date in the last line of `mysqldump` and `mariadb-dump`, a comment.
    MysqldumpDate,
    /// The random key that `pg_dump` and `pg_dumpall` put around all that they print: one of the repository's instead.
    PgRestrictKey,
}

impl Normaliser {
    const ALL: [Self; 2] = [Self::MysqldumpDate, Self::PgRestrictKey];

    /// As it is called in plans and snapshots.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MysqldumpDate => "mysqldump-date",
            Self::PgRestrictKey => "pg-restrict-key",
        }
    }

    /// Those that `key` of the settings names.
    ///
    /// # Errors
    /// `InvalidPlan` for a name that nobody knows, or that comes twice.
    pub fn from_settings(settings: &Settings, key: &str) -> Result<Vec<Self>> {
        let known = Self::ALL.map(Self::name);
        let mut chosen = Vec::new();
        for name in settings.text_list(key) {
            let Some(one) = Self::ALL.into_iter().find(|one| one.name() == name) else {
                let message = format!("names \"{name}\", which nobody knows{}", did_you_mean(&name, &known));
                return Err(settings.error(key, message).hint(format!("There are: {}", listing(&known))));
            };
            if chosen.contains(&one) {
                return Err(settings.error(key, format!("names \"{name}\" twice")));
            }
            chosen.push(one);
        }
        Ok(chosen)
    }

    fn start(self, secret: &dyn Fn(&str) -> [u8; 32]) -> Box<dyn Normalise> {
        match self {
            Self::MysqldumpDate => Box::new(DumpDate::default()),
            Self::PgRestrictKey => {
                let key = to_hex(&secret("pg restrict key"));
                Box::new(RestrictKey::new(key.as_bytes()[..NEW_KEY_LEN].to_vec()))
            }
        }
    }
}

trait Normalise: Rewrite {
    /// Whether it found what it is for.
    fn has_found(&self) -> bool;
}

/// Several, one after the other.
pub struct Normalising {
    stages: Vec<(Normaliser, Box<dyn Normalise>)>,
}

impl Normalising {
    /// Will apply `chosen`, with secrets of the repository by purpose.
    pub fn new(chosen: &[Normaliser], secret: &dyn Fn(&str) -> [u8; 32]) -> Self {
        Self { stages: chosen.iter().map(|one| (*one, one.start(secret))).collect() }
    }

    /// The names of those that found what they are for.
    pub fn applied(&self) -> Vec<&'static str> {
        self.stages.iter().filter(|(_, stage)| stage.has_found()).map(|(one, _)| one.name()).collect()
    }
}

impl Rewrite for Normalising {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut piece = bytes.to_vec();
        for (_, stage) in &mut self.stages {
            let mut next = Vec::with_capacity(piece.len());
            stage.push(&piece, &mut next);
            piece = next;
        }
        out.append(&mut piece);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let mut rest = Vec::new();
        for (_, stage) in &mut self.stages {
            let mut next = Vec::new();
            stage.push(&rest, &mut next);
            stage.finish(&mut next);
            rest = next;
        }
        out.append(&mut rest);
    }
}

/// `-- Dump completed on 2026-11-20  2:10:07` as the last line becomes `-- Dump completed`, which is what
/// `--skip-dump-date` makes of it.
#[derive(Default)]
struct DumpDate {
    held: Vec<u8>,
    found: bool,
}

const COMPLETED: &[u8] = b"-- Dump completed";
const DATE_FORM: &[u8] = b" on 0000-00-00 00:00:00";

impl Rewrite for DumpDate {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let surplus = self.held.len().saturating_sub(END_LEN);
        out.extend(self.held.drain(..surplus));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let text = held.trim_ascii_end();
        let start = memchr::memrchr(b'\n', text).map_or(0, |feed| feed + 1);
        self.found = text[start..].strip_prefix(COMPLETED).is_some_and(is_date);
        if self.found {
            out.extend_from_slice(&held[..start]);
            out.extend_from_slice(COMPLETED);
            out.extend_from_slice(&held[text.len()..]);
        } else {
            out.extend_from_slice(&held);
        }
    }
}

impl Normalise for DumpDate {
    fn has_found(&self) -> bool {
        self.found
    }
}

/// Digits where [`DATE_FORM`] has them, a blank for the first of the hour, all else as it stands there.
fn is_date(text: &[u8]) -> bool {
    let hour = DATE_FORM.len() - 8;
    text.len() == DATE_FORM.len()
        && text.iter().zip(DATE_FORM).enumerate().all(|(at, (byte, form))| match form {
            b'0' => byte.is_ascii_digit() || (at == hour && *byte == b' '),
            _ => byte == form,
        })
}

/// `\restrict KEY` near the beginning, and every later line `\restrict KEY` and `\unrestrict KEY` with the same key.
///
/// What stands between them was dumped without knowing the key, so no line of data is taken for one; and the new key is as
/// secret, being the repository's.
struct RestrictKey {
    new: Vec<u8>,
    held: Vec<u8>,
    /// `restrict KEY` and a line feed; none before the beginning was searched.
    old: Option<Finder<'static>>,
    searched: bool,
    /// Whether the byte before `held` is a line feed, or there is none.
    at_line_start: bool,
}

const RESTRICT: &[u8] = b"restrict ";
/// What may stand between the line feed and that.
const LEADS: [&[u8]; 2] = [b"\\", b"\\un"];

impl RestrictKey {
    fn new(new: Vec<u8>) -> Self {
        Self { new, held: Vec::new(), old: None, searched: false, at_line_start: true }
    }

    /// Looks for the key in the beginning, if that is whole.
    fn search(&mut self, is_all: bool) {
        if self.searched || (self.held.len() < END_LEN && !is_all) {
            return;
        }
        self.searched = true;
        let beginning = &self.held[..self.held.len().min(END_LEN)];
        let lines = beginning.split_inclusive(|byte| *byte == b'\n');
        let keys = lines.filter_map(|line| line.strip_prefix(b"\\restrict ")?.strip_suffix(b"\n"));
        let is_key = |key: &&[u8]| (1..=KEY_LEN_MAX).contains(&key.len()) && key.iter().all(u8::is_ascii_alphanumeric);
        self.old = keys.take(1).find(is_key).map(|key| Finder::new(&[RESTRICT, key, b"\n"].concat()).into_owned());
    }

    /// Gives out all of what is held but its last `keep` bytes, which may be the beginning of a line to rewrite.
    fn give(&mut self, keep: usize, out: &mut Vec<u8>) {
        let mut done = 0;
        if let Some(old) = &self.old {
            let found: Vec<usize> = old.find_iter(&self.held).collect();
            for at in found {
                if is_command(&self.held[..at], self.at_line_start) {
                    out.extend_from_slice(&self.held[done..at + RESTRICT.len()]);
                    out.extend_from_slice(&self.new);
                    // The line feed stays: it may be what the next line is known by.
                    done = at + old.needle().len() - 1;
                }
            }
        }
        let end = self.held.len().saturating_sub(keep).max(done);
        out.extend_from_slice(&self.held[done..end]);
        if let Some(last) = end.checked_sub(1) {
            self.at_line_start = self.held[last] == b'\n';
        }
        self.held.drain(..end);
    }
}

/// Whether `before` ends with a line feed and the lead of a command.
fn is_command(before: &[u8], at_line_start: bool) -> bool {
    LEADS.iter().filter_map(|lead| before.strip_suffix(*lead)).any(|line| match line.last() {
        Some(byte) => *byte == b'\n',
        None => at_line_start,
    })
}

impl Rewrite for RestrictKey {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        self.search(false);
        if self.searched {
            let keep = self.old.as_ref().map_or(0, |old| old.needle().len() + LEADS[1].len());
            self.give(keep, out);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.search(true);
        self.give(0, out);
    }
}

impl Normalise for RestrictKey {
    fn has_found(&self) -> bool {
        self.old.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "4f1RZ0ckY3u8";
    const MYSQL: &str = "-- MySQL dump 10.13\nINSERT INTO t VALUES (1,'-- Dump completed on 2026-11-20 02:10:07\\n');\n\n\
                         -- Dump completed on 2026-11-20  2:10:07\n";
    const PG: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict 4f1RZ0ckY3u8\n\n\
                      COPY public.t (v) FROM stdin;\nthe key 4f1RZ0ckY3u8\n\\\\restrict 4f1RZ0ckY3u8\n\\restrict other\n\\.\n\
                      \\unrestrict 4f1RZ0ckY3u8\n\\connect b\n\\restrict 4f1RZ0ckY3u8\n\\unrestrict 4f1RZ0ckY3u8\n\n";

    fn normalised(one: Normaliser, parts: &[&[u8]]) -> (String, bool) {
        let mut normalising = Normalising::new(&[one], &|_| [0xab; 32]);
        let mut out = Vec::new();
        for part in parts {
            normalising.push(part, &mut out);
        }
        normalising.finish(&mut out);
        (String::from_utf8(out).unwrap(), normalising.applied() == [one.name()])
    }

    fn whole(one: Normaliser, text: &str) -> (String, bool) {
        normalised(one, &[text.as_bytes()])
    }

    fn new_key() -> String {
        "ab".repeat(NEW_KEY_LEN / 2)
    }

    /// What becomes of [`PG`]: each command, and no line that only looks like one.
    fn pg_expected() -> String {
        let command = |text: String, lead: &str| {
            text.replace(&format!("\n\\{lead}restrict {KEY}\n"), &format!("\n\\{lead}restrict {}\n", new_key()))
        };
        command(command(PG.to_owned(), ""), "un")
    }

    #[test]
    fn only_the_date_of_the_last_line_goes() {
        let (text, found) = whole(Normaliser::MysqldumpDate, MYSQL);
        assert!(found);
        assert_eq!(text, MYSQL.replace("completed on 2026-11-20  2:10:07\n", "completed\n"));
        let other_night = MYSQL.replace("2026-11-20  2:10:07", "2026-11-21 12:00:00");
        assert_eq!(whole(Normaliser::MysqldumpDate, &other_night).0, text);
    }

    #[test]
    fn what_is_no_date_of_a_dump_stays_as_it_is() {
        for text in [
            "",
            "\n",
            "-- Dump completed\n",
            "-- Dump completed on 2026-11-20 02:10\n",
            "-- Dump completed on 2026-11-20 02:10:07 and more\n",
            "-- Dump completed on 2026-11-20 02:10:07\nSELECT 1;\n",
            "x -- Dump completed on 2026-11-20 02:10:07\n",
        ] {
            assert_eq!(whole(Normaliser::MysqldumpDate, text), (text.to_owned(), false));
        }
    }

    #[test]
    fn every_command_gets_the_key_of_the_repository_and_no_data_does() {
        let (text, found) = whole(Normaliser::PgRestrictKey, PG);
        assert!(found);
        assert_eq!(text, pg_expected());
        assert_eq!(text.matches(&new_key()).count(), 4);
        assert_eq!(text.matches(KEY).count(), 2, "data were rewritten");
        let other_night = PG.replace(KEY, "Zr8");
        assert_eq!(whole(Normaliser::PgRestrictKey, &other_night).0.replace("Zr8", KEY), text);
    }

    #[test]
    fn a_dump_without_a_key_or_with_one_that_is_none_stays_as_it_is() {
        let odd = PG.replace(KEY, "not-a-key");
        let late = format!("{}{PG}", "-- x\n".repeat(END_LEN));
        for text in ["", "\\restrict", "--\n\\unrestrict abc\n", &odd, &late] {
            assert_eq!(whole(Normaliser::PgRestrictKey, text), (text.to_owned(), false));
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_stream_is_cut(
            rows in 0_usize..400,
            cuts in prop::collection::vec(0_usize..12_000, 0..30),
        ) {
            let data = "a row of data\n".repeat(rows);
            let pg = PG.replace("\\.\n", &format!("{data}\\.\n"));
            let mysql = format!("{data}{MYSQL}");
            for (one, text) in [(Normaliser::PgRestrictKey, &pg), (Normaliser::MysqldumpDate, &mysql)] {
                let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).chain([0, text.len()]).collect();
                places.sort_unstable();
                let parts: Vec<&[u8]> = places.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
                prop_assert_eq!(normalised(one, &parts), whole(one, text));
            }
        }

        #[test]
        fn what_has_nothing_to_find_comes_through_byte_by_byte(text in "[a-z\\\\ \n-]{0,300}", cut: usize) {
            let cut = cut % (text.len() + 1);
            for one in Normaliser::ALL {
                let (same, found) = normalised(one, &[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
                prop_assert!(found || same == text);
            }
        }
    }
}
