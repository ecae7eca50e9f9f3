//! A shop to back up: a directory of uploads, and a SQLite database that it writes into until its standard input ends.
//!
//! `shop DIRECTORY` makes both where they are missing, prints `open` when there is something to back up, and sells.
//! `examples/quickstart` keeps it running while compline makes a snapshot.

#![expect(clippy::disallowed_methods, reason = "the shop is not part of compline")]

use std::error::Error;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use std::{env, fs, io, thread};

use rusqlite::Connection;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS upload (name TEXT PRIMARY KEY, len INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS sale (id INTEGER PRIMARY KEY, upload TEXT NOT NULL REFERENCES upload, cents INTEGER NOT NULL);";

/// Uploads that come in each time the shop opens.
const UPLOADS: u64 = 40;
/// Sales that are made before the shop says that it is open.
const SALES: u64 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args_os().nth(1).map(PathBuf::from).ok_or("usage: shop DIRECTORY")?;
    let mut shop = Shop::open(&directory)?;
    shop.take_uploads(&directory.join("uploads"))?;
    shop.sell(SALES)?;
    writeln!(io::stdout(), "open")?;
    sell_until_input_ends(&mut shop)
}

struct Shop {
    database: Connection,
    dice: Dice,
}

impl Shop {
    fn open(directory: &Path) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(directory)?;
        let database = Connection::open(directory.join("shop.db"))?;
        database.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        database.execute_batch(SCHEMA)?;
        let sold: u64 = database.query_row("SELECT count(*) FROM sale", [], |row| row.get(0))?;
        Ok(Self { database, dice: Dice(sold + 1) })
    }

    /// New files, and a row for each that names it.
    fn take_uploads(&mut self, directory: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(directory)?;
        let known: u64 = self.database.query_row("SELECT count(*) FROM upload", [], |row| row.get(0))?;
        for number in known..known + UPLOADS {
            let name = format!("picture-{number:05}.raw");
            let len = 1_000 + self.dice.roll() % 200_000;
            let content: Vec<u8> = (0..len).map(|_| self.dice.roll().to_le_bytes()[0]).collect();
            fs::write(directory.join(&name), content)?;
            self.database.execute("INSERT INTO upload VALUES (?1, ?2)", (&name, len))?;
        }
        Ok(())
    }

    fn sell(&mut self, count: u64) -> rusqlite::Result<()> {
        let uploads: u64 = self.database.query_row("SELECT count(*) FROM upload", [], |row| row.get(0))?;
        let transaction = self.database.transaction()?;
        for _ in 0..count {
            let name = format!("picture-{:05}.raw", self.dice.roll() % uploads);
            let cents = self.dice.roll() % 10_000;
            transaction.execute("INSERT INTO sale (upload, cents) VALUES (?1, ?2)", (name, cents))?;
        }
        transaction.commit()
    }
}

fn sell_until_input_ends(shop: &mut Shop) -> Result<(), Box<dyn Error>> {
    let (close, closed) = channel::<()>();
    thread::spawn(move || {
        // Whether it ends or fails: the shop closes when `close` is dropped.
        let ended = io::stdin().read_to_end(&mut Vec::new());
        drop((ended, close));
    });
    while closed.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
        shop.sell(1)?;
    }
    Ok(())
}

/// Numbers that look random and are the same each time: `SplitMix64`.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
