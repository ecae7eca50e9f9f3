//! A stage for components: an archive in memory, and everything else that a run gives them.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use compline::archive::snapshot::ComponentStats;
use compline::archive::{
    ArchivePath, CaptureSink, CaptureSource, ComponentRecord, Content, Entry, EntryKind, FilesSource, Metadata, Piece,
    RestoreOptions, RestoreSummary, Status, StreamSummary,
};
use compline::clock::SystemClock;
use compline::components::{
    self, CaptureEnvironment, Captured, Component, Existing, RestoreEnvironment, RestoreStep, Restored,
};
use compline::error::{Error, ErrorKind, Result};
use compline::id::ChunkId;
use compline::observer::{Context, Ledger, Problem};
use compline::settings::Settings;
use tempfile::TempDir;

/// Files by path, as a component stored them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MemoryArchive {
    pub files: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for MemoryArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.files.iter().map(|(path, bytes)| (path.escape_ascii().to_string(), bytes.len())))
            .finish()
    }
}

impl MemoryArchive {
    pub fn paths(&self) -> Vec<String> {
        self.files.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    pub fn file(&self, path: &str) -> &[u8] {
        &self.files[path.as_bytes()]
    }
}

impl CaptureSink for MemoryArchive {
    fn put_stream(&mut self, path: &ArchivePath, reader: &mut (dyn Read + Send)) -> Result<StreamSummary> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|cause| Error::io(format!("Can't read {path}"), cause))?;
        let len = bytes.len() as u64;
        self.files.insert(path.to_bytes(), bytes);
        Ok(StreamSummary { len })
    }

    fn put_files(&mut self, _source: &FilesSource) -> Result<()> {
        Err(Error::new(ErrorKind::Bug, "This archive takes streams only"))
    }
}

impl CaptureSource for MemoryArchive {
    fn entry(&self, path: &ArchivePath) -> Result<Entry> {
        let bytes = self.files.get(&path.to_bytes()).ok_or_else(|| missing(path))?;
        let len = bytes.len() as u64;
        let pieces = if len == 0 { vec![] } else { vec![Piece { id: ChunkId::from_bytes([1; 32]), len }] };
        let name = path.names().last().cloned().unwrap_or_default();
        let kind = EntryKind::File(Content { len, pieces, ..Content::default() });
        Ok(Entry { name, kind, metadata: Metadata::default(), changed_while_read: false })
    }

    fn list(&self, path: &ArchivePath) -> Result<Vec<Entry>> {
        let inside = |file: &&Vec<u8>| {
            ArchivePath::parse(file).is_ok_and(|file| file.split_last().is_some_and(|(parent, _)| parent == *path))
        };
        let entry = |file: &Vec<u8>| self.entry(&ArchivePath::parse(file).expect("stored paths are valid"));
        self.files.keys().filter(inside).map(entry).collect()
    }

    fn open(&self, path: &ArchivePath) -> Result<Box<dyn Read + Send + '_>> {
        let bytes = self.files.get(&path.to_bytes()).ok_or_else(|| missing(path))?;
        Ok(Box::new(Cursor::new(bytes.as_slice())))
    }

    fn restore_files(&self, _: &ArchivePath, target: &Path, _: &RestoreOptions) -> Result<RestoreSummary> {
        let mut summary = RestoreSummary::default();
        for (path, bytes) in &self.files {
            let place = ArchivePath::parse(path).expect("stored paths are valid").below(target);
            std::fs::create_dir_all(place.parent().expect("it is below the target")).expect("a writable target");
            std::fs::write(place, bytes).expect("a writable target");
            summary.files_restored += 1;
        }
        Ok(summary)
    }
}

fn missing(path: &ArchivePath) -> Error {
    Error::new(ErrorKind::NotFound, format!("There is no {path}"))
}

/// What one night gave.
#[derive(Debug)]
pub struct Night {
    pub archive: MemoryArchive,
    pub captured: Captured,
    pub problems: Vec<Problem>,
}

/// What a restore is asked for, besides the night.
#[derive(Default)]
pub struct Wish<'a> {
    pub existing: Existing,
    pub root: Option<&'a Path>,
    pub force_version: Option<&'a str>,
    pub keep: &'a [std::path::PathBuf],
}

/// The world around a component.
pub struct Stage {
    pub scratch: TempDir,
    pub interrupt: AtomicBool,
    pub variables: BTreeMap<String, String>,
    /// Stands for the repository: what secrets are derived from.
    pub repository: u8,
}

impl Stage {
    pub fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        Self { scratch, interrupt: AtomicBool::new(false), variables: BTreeMap::new(), repository: 7 }
    }

    /// The component of `kind` with the settings `text`.
    pub fn component(&self, kind: &str, text: &str) -> Box<dyn Component> {
        self.try_component(kind, text).expect("valid settings")
    }

    pub fn try_component(&self, kind: &str, text: &str) -> Result<Box<dyn Component>> {
        let kind = components::kind(kind).expect("a known kind");
        let settings = Settings::parse(&self.scratch.path().join("plan.toml"), text)?;
        settings.check(kind.fields)?;
        (kind.build)(&settings)
    }

    pub fn capture(&self, component: &dyn Component) -> Result<Night> {
        let mut archive = MemoryArchive::default();
        let (captured, problems) = self.capture_into(component, &mut archive)?;
        Ok(Night { archive, captured, problems })
    }

    pub fn capture_into(
        &self,
        component: &dyn Component,
        sink: &mut dyn CaptureSink,
    ) -> Result<(Captured, Vec<Problem>)> {
        let ledger = Ledger::default();
        let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &self.interrupt };
        let variable = |name: &str| self.variables.get(name).cloned();
        let secret = |purpose: &str| {
            let mut secret = [self.repository; 32];
            secret.iter_mut().zip(purpose.bytes()).for_each(|(byte, letter)| *byte ^= letter);
            secret
        };
        let env = CaptureEnvironment {
            context,
            name: "it",
            secret: &secret,
            variable: &variable,
            scratch: self.scratch.path(),
        };
        let captured = component.capture(&env, sink)?;
        Ok((captured, ledger.problems()))
    }

    pub fn plan(&self, component: &dyn Component, night: &Night, wish: &Wish<'_>) -> Result<Vec<RestoreStep>> {
        self.with(&night.captured, &night.archive, wish, |env| component.plan_restore(env))
    }

    pub fn restore(&self, component: &dyn Component, night: &Night, wish: &Wish<'_>) -> Result<Restored> {
        self.restore_from(component, &night.captured, &night.archive, wish)
    }

    pub fn restore_from(
        &self,
        component: &dyn Component,
        captured: &Captured,
        source: &dyn CaptureSource,
        wish: &Wish<'_>,
    ) -> Result<Restored> {
        self.with(captured, source, wish, |env| component.restore(env))
    }

    fn with<T>(
        &self,
        captured: &Captured,
        source: &dyn CaptureSource,
        wish: &Wish<'_>,
        act: impl FnOnce(&RestoreEnvironment<'_>) -> T,
    ) -> T {
        let ledger = Ledger::default();
        let context = Context { clock: &SystemClock, observer: &ledger, interrupt: &self.interrupt };
        let record = record(captured, None);
        let variable = |name: &str| self.variables.get(name).cloned();
        act(&RestoreEnvironment {
            context,
            name: "it",
            record: &record,
            source,
            existing: wish.existing,
            force_version: wish.force_version,
            root: wish.root.map(Path::to_path_buf),
            keep: wish.keep,
            variable: &variable,
            scratch: self.scratch.path(),
        })
    }

    /// Asserts that nothing was left in the scratch directory.
    pub fn assert_swept(&self) {
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).expect("readable").flatten().collect();
        assert!(left.is_empty(), "left in the scratch directory: {left:?}");
    }
}

/// The record a snapshot would keep, through its stored form.
pub fn record(captured: &Captured, root: Option<&Entry>) -> ComponentRecord {
    let epoch = "1970-01-01T00:00:00Z".parse().expect("a valid time");
    let record = ComponentRecord {
        name: "it".into(),
        kind: "it".into(),
        role: "source".into(),
        references: vec![],
        derived_from: vec![],
        status: Status::Complete,
        reason: None,
        started_at: epoch,
        finished_at: epoch,
        versions: captured.versions.clone(),
        completeness: Some(captured.completeness.clone()),
        facts: captured.facts.clone(),
        commands: captured.commands.clone(),
        problems: vec![],
        problem_count: 0,
        chunker: "default".into(),
        stats: ComponentStats::default(),
        root: root.map(ComponentRecord::encode_root),
        other: serde_json::Map::default(),
    };
    let text = serde_json::to_string(&record).expect("a record is JSON");
    serde_json::from_str(&text).expect("a record comes back")
}
