use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::archive::entry::Piece;
use crate::chunker::Profile;
use crate::clock::FixedClock;
use crate::crypto::Secret;
use crate::observer::{Context, Counter, Ledger};
use crate::storage::MemoryStorage;
use crate::store::{Repository, Unlock};

static NEVER: AtomicBool = AtomicBool::new(false);

fn repository() -> Repository {
    let unlock = Unlock::KeyFile(Secret::from_bytes([1; 32]));
    let storage = MemoryStorage::new();
    Repository::create(&storage, &unlock, "", Timestamp::UNIX_EPOCH).unwrap();
    Repository::open(Box::new(storage), &unlock, None).unwrap()
}

fn with_context<T>(work: impl FnOnce(Context<'_>, &Ledger) -> T) -> T {
    let (clock, ledger) = (FixedClock(Timestamp::UNIX_EPOCH), Ledger::default());
    work(Context { clock: &clock, observer: &ledger, interrupt: &NEVER }, &ledger)
}

fn write(repository: &Repository, rows: &BTreeMap<Vec<u8>, Row>, context: Context<'_>) -> Result<Table> {
    let chunker = repository.chunker(Profile::default());
    let mut writer = repository.writer(false, &context)?;
    let mut sink = ListSink { repository, writer: &mut writer, chunker: &chunker, context };
    let mut table = TableWriter::default();
    for row in rows.values() {
        table.push(row, &mut sink)?;
    }
    let table = table.finish(&mut sink)?;
    writer.finish(&context)?;
    Ok(table)
}

fn row(key: Vec<u8>, seed: u64) -> Row {
    let id = ChunkId::from_bytes(*blake3::hash(&seed.to_le_bytes()).as_bytes());
    let len = seed % 5000 + 1;
    Row {
        key,
        content: Content { len, pieces: vec![Piece { id, len }], ..Content::default() },
        modified: Some(Time { seconds: 1_700_000_000, nanoseconds: 5 }),
        etag: Some(format!("{seed:032x}").into_bytes()),
        ..Row::default()
    }
}

fn rows(count: u64) -> BTreeMap<Vec<u8>, Row> {
    (0..count)
        .map(|n| (format!("photos/{:08}.jpg", n * 7).into_bytes(), n))
        .map(|(k, n)| (k.clone(), row(k, n)))
        .collect()
}

#[test]
fn a_table_of_many_objects_gives_every_row_and_every_range_back() {
    with_context(|context, ledger| {
        let repository = repository();
        let rows = rows(40_000);
        let table = write(&repository, &rows, context).unwrap();
        assert!(table.level >= 1);
        assert_eq!(table.row_count, 40_000);
        assert_eq!(table.content_len, rows.values().map(|row| row.content.len).sum::<u64>());
        let chunks = repository.reader(context);
        let all: Vec<Row> = table.rows_from(&chunks, b"").collect::<Result<_>>().unwrap();
        assert!(all.iter().eq(rows.values()));
        for start in ["", "photos/", "photos/00000008", "photos/00139993.jpg", "photos/00139993.jpg0", "q"] {
            let found: Vec<Row> = table.rows_from(&chunks, start.as_bytes()).take(3).collect::<Result<_>>().unwrap();
            assert!(found.iter().eq(rows.range(start.as_bytes().to_vec()..).map(|(_, row)| row).take(3)), "{start}");
        }
        let before = ledger.get(Counter::ObjectsRead);
        assert_eq!(
            table.get(&chunks, b"photos/00139993.jpg").unwrap().as_ref(),
            rows.get(b"photos/00139993.jpg".as_slice())
        );
        assert!(ledger.get(Counter::ObjectsRead) - before <= u64::from(table.level) + 1, "one page of each level");
        for missing in ["", "a", "photos/00000001.jpg", "zzz"] {
            assert_eq!(table.get(&chunks, missing.as_bytes()).unwrap(), None);
        }
    });
}

#[test]
fn a_changed_object_costs_one_page_of_each_level() {
    with_context(|context, ledger| {
        let repository = repository();
        let mut rows = rows(20_000);
        write(&repository, &rows, context).unwrap();
        rows.values_mut().nth(9_999).unwrap().etag = Some(b"changed".to_vec());
        let before = ledger.get(Counter::ChunksNew);
        let table = write(&repository, &rows, context).unwrap();
        assert!(ledger.get(Counter::ChunksNew) - before <= u64::from(table.level) + 1);
        rows.insert(b"photos/00050000a".to_vec(), row(b"photos/00050000a".to_vec(), 77));
        let before = ledger.get(Counter::ChunksNew);
        write(&repository, &rows, context).unwrap();
        assert!(ledger.get(Counter::ChunksNew) - before <= u64::from(table.level) + 3, "a page may be cut anew");
    });
}

#[test]
fn an_empty_bucket_is_one_empty_page() {
    with_context(|context, _| {
        let repository = repository();
        let table = write(&repository, &BTreeMap::new(), context).unwrap();
        assert_eq!((table.level, table.row_count, table.content_len), (0, 0, 0));
        let chunks = repository.reader(context);
        assert_eq!(table.rows_from(&chunks, b"").count(), 0);
        assert_eq!(table.get(&chunks, b"a").unwrap(), None);
    });
}

#[test]
fn rows_out_of_order_and_rows_that_no_reader_would_take_are_refused() {
    with_context(|context, _| {
        let repository = repository();
        let chunker = repository.chunker(Profile::default());
        let mut writer = repository.writer(false, &context).unwrap();
        let mut sink = ListSink { repository: &repository, writer: &mut writer, chunker: &chunker, context };
        let mut table = TableWriter::default();
        table.push(&row(b"b".to_vec(), 1), &mut sink).unwrap();
        assert!(table.push(&row(b"a".to_vec(), 1), &mut sink).is_err());
        assert!(table.push(&row(b"b".to_vec(), 1), &mut sink).is_err());
        assert!(table.push(&row(Vec::new(), 1), &mut sink).is_err());
        assert!(table.push(&row(vec![b'x'; KEY_LEN_MAX + 1], 1), &mut sink).is_err());
        let unsorted =
            Row { user: vec![(b"b".to_vec(), Vec::new()), (b"a".to_vec(), Vec::new())], ..row(b"c".to_vec(), 1) };
        assert!(table.push(&unsorted, &mut sink).is_err());
        table.push(&row(b"c".to_vec(), 1), &mut sink).unwrap();
        assert_eq!(table.finish(&mut sink).unwrap().row_count, 2);
    });
}

#[test]
fn a_page_that_is_not_what_the_one_above_says_is_damage() {
    with_context(|context, _| {
        let repository = repository();
        let table = write(&repository, &rows(10), context).unwrap();
        let chunks = repository.reader(context);
        let wrong = Table { row_count: 11, ..table.clone() };
        assert_eq!(wrong.get(&chunks, b"a").unwrap_err().kind(), ErrorKind::Damaged);
        let wrong = Table { level: 1, ..table };
        assert_eq!(wrong.rows_from(&chunks, b"").next().unwrap().unwrap_err().kind(), ErrorKind::Damaged);
    });
}

fn any_row() -> impl Strategy<Value = Row> {
    let text = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
    let user = proptest::collection::btree_map(
        proptest::collection::vec(any::<u8>(), 0..9),
        proptest::collection::vec(any::<u8>(), 0..30),
        0..4,
    );
    let key = proptest::collection::vec(any::<u8>(), 1..300);
    (key, any::<u64>(), text(), text(), text(), user, any::<bool>()).prop_map(
        |(key, seed, etag, version, content_type, user, dated)| Row {
            etag,
            version,
            content_type,
            user: user.into_iter().collect(),
            modified: dated.then_some(Time { seconds: -5, nanoseconds: 999_999_999 }),
            ..row(key, seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_row_comes_back_as_it_was(row in any_row()) {
        let mut w = Writer::new();
        row.encode(&mut w);
        let bytes = w.into_bytes();
        let mut r = Reader::new(&bytes);
        prop_assert_eq!(Row::decode(&mut r), Ok(row));
        prop_assert_eq!(r.end(), Ok(()));
    }

    #[test]
    fn decoding_pages_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200), level in 0u8..3) {
        let mut page = vec![TABLE_VERSION, level];
        page.extend_from_slice(&bytes);
        if let Ok(decoded) = Page::decode(&page) {
            prop_assert_eq!(decoded.encode(), page);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn any_table_is_a_map(found in proptest::collection::vec(any_row(), 0..900), probes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3), 8)) {
        let rows: BTreeMap<Vec<u8>, Row> = found.into_iter().map(|row| (row.key.clone(), row)).collect();
        with_context(|context, _| {
            let repository = repository();
            let table = write(&repository, &rows, context).unwrap();
            let chunks = repository.reader(context);
            let all: Vec<Row> = table.rows_from(&chunks, b"").collect::<Result<_>>().unwrap();
            prop_assert!(all.iter().eq(rows.values()));
            for probe in probes {
                let found = table.get(&chunks, &probe).unwrap();
                prop_assert_eq!(found.as_ref(), rows.get(&probe));
                let next = table.rows_from(&chunks, &probe).next().transpose().unwrap();
                prop_assert_eq!(next.as_ref(), rows.range(probe..).next().map(|(_, row)| row));
            }
            Ok(())
        })?;
    }
}
