//! `stats`: how much is stored for how much.

use serde::Serialize;

use super::{App, Target};
use crate::archive::snapshot::ReflateStats;
use crate::archive::snapshots as finding;
use crate::error::Result;
use crate::storage::ObjectKind;

/// Totals of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Bytes of all objects in storage.
    pub bytes_stored: u64,
    /// Content bytes of all snapshots, as if each stood alone.
    pub bytes_logical: u64,
    /// Plain bytes of all stored chunks.
    pub bytes_unique: u64,
    /// Chunks.
    pub chunks: u64,
    /// Packs.
    pub packs: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// What all snapshots did about compressed data.
    #[serde(skip_serializing_if = "ReflateStats::is_empty")]
    pub reflated: ReflateStats,
}

/// Adds them up.
///
/// # Errors
/// From the repository.
pub fn run(app: App<'_>, target: &Target) -> Result<Stats> {
    let repository = target.open()?;
    repository.refresh(&app.context)?;
    let snapshots = finding::all(&repository, &app.context)?;
    let mut bytes_stored = 0;
    for kind in ObjectKind::ALL {
        bytes_stored += repository.storage().list(kind)?.iter().map(|row| row.len).sum::<u64>();
    }
    let totals = repository.index().totals()?;
    let components = snapshots.iter().flat_map(|published| &published.snapshot.components);
    let mut reflated = ReflateStats::default();
    for record in components.clone() {
        reflated += &record.stats.reflated;
    }
    Ok(Stats {
        reflated,
        bytes_stored,
        bytes_logical: components.map(|record| record.stats.bytes_logical).sum(),
        bytes_unique: totals.chunk_bytes,
        chunks: totals.chunks,
        packs: totals.packs,
        snapshots: snapshots.len() as u64,
    })
}
