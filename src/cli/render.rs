//! Reports for people and for programs. The only writes to standard output in the crate.

mod compressed;
mod copy;
mod prune;
mod retention;

pub(super) use copy::Copies;

use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::archive::diff::{Change, Difference};
use crate::archive::snapshot::Status;
use crate::archive::snapshots::Published;
use crate::commands::Target;
use crate::commands::backup::{BackupReport, ComponentReport};
use crate::commands::check::CheckReport;
use crate::commands::find::Match;
use crate::commands::init::InitReport;
use crate::commands::keys::{ChangeReport, RecoverySheet};
use crate::commands::listing::Listed;
use crate::commands::prune::PruneReport;
use crate::commands::recover::{RecoveryPlan, RecoveryReport};
use crate::commands::repair::RepairReport;
use crate::commands::restore::RestoreReport;
use crate::commands::snapshots::Row;
use crate::commands::stats::Stats;
use crate::error::{Error, ErrorKind, Result};
use crate::id::KeyId;
use crate::observer::Problem;
use crate::store::salvage::Salvage;
use crate::store::{KeyInfo, Recipient};
use crate::units;

/// Buffered standard output.
pub(super) type Out = BufWriter<Stdout>;

pub(super) fn stdout() -> Out {
    BufWriter::with_capacity(64 << 10, Stdout(io::stdout().lock()))
}

/// Standard output that says of a broken pipe that it is its own, not one of a program that we run.
pub(super) struct Stdout(StdoutLock<'static>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(own)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(own)
    }
}

/// The reader of our output went away, as `head` does.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads it any more")]
pub(super) struct ReaderGone;

fn own(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::new(error.kind(), ReaderGone) } else { error }
}

fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|cause| Error::io("The output can't be written", cause))
}

pub(super) fn flush(out: &mut Out) -> Result<()> {
    written(out.flush())
}

/// Writes bytes as they are.
pub(super) fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = stdout();
    written(out.write_all(bytes))?;
    flush(&mut out)
}

/// The name of this host.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of the user, or its number.
pub(super) fn user_name() -> String {
    uzers::get_current_username()
        .map_or_else(|| uzers::get_current_uid().to_string(), |name| name.to_string_lossy().into_owned())
}

fn local_time(time: Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Complete => "complete",
        Status::Partial => "partial",
        Status::Failed => "FAILED",
        Status::Skipped => "skipped",
    }
}

/// `1 file`, `2 files`.
fn number(n: u64, what: &str) -> String {
    format!("{} {what}{}", units::count(n), if n == 1 { "" } else { "s" })
}

fn seconds(seconds: f64) -> String {
    units::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Lines up columns: all but the last are padded.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How to write.
pub(super) struct Renderer {
    pub json: bool,
    pub quiet: bool,
}

/// Counts of a diff.
#[derive(Debug, Default)]
pub(super) struct DiffTotals {
    added: u64,
    removed: u64,
    modified: u64,
    metadata: u64,
}

/// Lost paths of a snapshot that people are shown.
const LOST_COUNT_SHOWN: usize = 20;

fn beyond_healing(report: &RepairReport) -> String {
    let mut text = String::new();
    if report.fetched + report.chunks_fetched > 0 {
        let (objects, chunks) = (number(report.fetched, "object"), number(report.chunks_fetched, "chunk"));
        text.push_str(&format!("Took {objects} and {chunks} over from elsewhere.\n"));
    }
    let Salvage { packs_removed, chunks_saved, chunks_unreadable, .. } = &report.salvage;
    if *packs_removed > 0 {
        text.push_str(&format!(
            "Removed {}: {} in them could be read and were stored again, {} could not.\n",
            number(*packs_removed, "pack"),
            number(*chunks_saved, "chunk"),
            number(*chunks_unreadable, "chunk"),
        ));
    }
    for hit in &report.snapshots_hit {
        let paths = number(hit.lost_count, "path");
        text.push_str(&format!("Snapshot {} has lost {paths}:\n", hit.snapshot.short()));
        text.extend(hit.lost.iter().take(LOST_COUNT_SHOWN).map(|path| ["  ", path, "\n"].concat()));
        if hit.lost_count > LOST_COUNT_SHOWN as u64 {
            text.push_str("  and more, which --json lists\n");
        }
        if let Some(mended) = hit.mended {
            let mended = mended.short();
            text.push_str(&format!("  What is left is snapshot {mended}; the old one stays until you forget it.\n"));
        }
    }
    text
}

/// An error, for programs.
pub(super) fn error_object(error: &Error) -> serde_json::Value {
    serde_json::json!({
        "error": error.chain(),
        "code": error.kind().code(),
        "exit_code": error.kind().exit_code(),
        "hint": error.hint_text(),
    })
}

impl Renderer {
    fn object(value: &impl Serialize) -> Result<()> {
        let mut text = json(value)?;
        text.push(b'\n');
        raw(&text)
    }

    /// JSON for programs, else a text that --quiet leaves out.
    fn report(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        match (self.json, self.quiet) {
            (true, _) => Self::object(value),
            (false, true) => Ok(()),
            (false, false) => raw(text().as_bytes()),
        }
    }

    /// The same for what was asked for: --quiet doesn't hide it.
    fn answer(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { Self::object(value) } else { raw(text().as_bytes()) }
    }

    pub(super) fn version(&self) -> Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        let format = crate::store::envelope::FORMAT_VERSION;
        let value = serde_json::json!({ "version": version, "format": format });
        self.answer(&value, || format!("compline {version}, repository format {format}\n"))
    }

    pub(super) fn init(&self, report: &InitReport, key_file: Option<&Path>) -> Result<()> {
        // `backup --init --json` prints one object, that of the backup.
        if self.json {
            return Ok(());
        }
        self.report(report, || {
            let mut text = format!("Created repository {} at {}.\n", report.repository.short(), report.location);
            match key_file {
                Some(path) => text.push_str(&format!(
                    "The key is in {}. Keep a copy of it elsewhere: without it nobody can read the repository.\n",
                    path.display()
                )),
                None => text.push_str("Keep the passphrase safe: without it nobody can read the repository.\n"),
            }
            text
        })
    }

    pub(super) fn init_object(&self, report: &InitReport) -> Result<()> {
        if self.json { Self::object(report) } else { Ok(()) }
    }

    pub(super) fn backup(&self, report: &BackupReport, target: &Target) -> Result<()> {
        self.report(report, || backup_text(report, target))
    }

    pub(super) fn snapshots(&self, rows: &[Row]) -> Result<()> {
        self.answer(&rows, || {
            if rows.is_empty() {
                return "No snapshots.\n".to_owned();
            }
            let cells: Vec<Vec<String>> = rows.iter().map(snapshot_cells).collect();
            let header = ["id", "time", "host", "platform", "status", "tags", "size", "components"];
            format!("{}{}.\n", table(&header, &cells), number(rows.len() as u64, "snapshot"))
        })
    }

    pub(super) fn show(&self, published: &Published) -> Result<()> {
        let mut value = serde_json::to_value(&published.snapshot).map_err(unwritable)?;
        value["id"] = serde_json::json!(published.id);
        self.answer(&value, || show_text(published))
    }

    pub(super) fn entry(&self, out: &mut Out, entry: &Listed, long: bool) -> Result<()> {
        if self.json {
            return line(out, &json(entry)?);
        }
        line(out, if long { long_text(entry) } else { entry.path.clone() }.as_bytes())
    }

    pub(super) fn found(&self, out: &mut Out, found: &Match, long: bool) -> Result<()> {
        if self.json {
            return line(out, &json(found)?);
        }
        let short = found.snapshot.short();
        let text = if long {
            format!("{short}  {}", long_text(&found.entry))
        } else {
            format!("{short}:{}", found.entry.path)
        };
        line(out, text.as_bytes())
    }

    pub(super) fn difference(
        &self,
        out: &mut Out,
        difference: &Difference,
        content: bool,
        totals: &mut DiffTotals,
    ) -> Result<()> {
        let (sign, total) = match difference.change {
            Change::Added => ("+", &mut totals.added),
            Change::Removed => ("-", &mut totals.removed),
            Change::Modified => ("M", &mut totals.modified),
            Change::Metadata => ("m", &mut totals.metadata),
        };
        *total += 1;
        if content && difference.change == Change::Metadata {
            return Ok(());
        }
        if self.json {
            return line(out, &json(difference)?);
        }
        line(out, format!("{sign} {}", difference.path).as_bytes())
    }

    pub(super) fn diff_totals(&self, out: &mut Out, totals: &DiffTotals) -> Result<()> {
        if self.json || self.quiet {
            return Ok(());
        }
        let DiffTotals { added, removed, modified, metadata } = totals;
        line(
            out,
            format!("{added} added, {removed} removed, {modified} changed, {metadata} in metadata only.").as_bytes(),
        )
    }

    pub(super) fn stats(&self, stats: &Stats) -> Result<()> {
        self.answer(stats, || {
            format!(
                "{} of content in {} take {} of storage.\n{} ({} of plain bytes) in {}.\n{}",
                units::size(stats.bytes_logical),
                number(stats.snapshots, "snapshot"),
                units::size(stats.bytes_stored),
                number(stats.chunks, "chunk"),
                units::size(stats.bytes_unique),
                number(stats.packs, "pack"),
                compressed::sentence(&stats.reflated),
            )
        })
    }

    pub(super) fn restore(&self, report: &RestoreReport) -> Result<()> {
        self.report(report, || {
            let summary = &report.summary;
            let mut text = format!(
                "Restored {} ({}) of snapshot {} to {} in {}.\n",
                number(summary.files_restored, "file"),
                units::size(summary.bytes_restored),
                report.snapshot.short(),
                report.target.display(),
                seconds(report.seconds)
            );
            for (n, what) in [
                (summary.files_right, "right already"),
                (summary.files_kept, "left as they were"),
                (summary.files_deleted, "removed"),
            ] {
                if n > 0 {
                    text.push_str(&format!("{} {what}.\n", number(n, "file")));
                }
            }
            if summary.problems > 0 {
                text.push_str(&format!("{}: see above.\n", number(summary.problems, "problem")));
            }
            text
        })
    }

    pub(super) fn check(&self, report: &CheckReport) -> Result<()> {
        self.report(report, || {
            let read = match report.bytes_read {
                0 => "their data was not read (--read-data does)".to_owned(),
                bytes => format!("{} of their data were read", units::size(bytes)),
            };
            let (snapshots, packs) = (number(report.snapshots, "snapshot"), number(report.packs, "pack"));
            let ending = match report.problems.len() as u64 {
                0 => "No problems.".to_owned(),
                n => format!("{}: see above.", number(n, "problem")),
            };
            let mut text = String::new();
            for session in &report.sessions {
                text.push_str(&format!("At work, or dead and cleared by the next prune: {session}.\n"));
            }
            if report.retired_lists > 0 {
                let lists = number(report.retired_lists, "list");
                text.push_str(&format!("{lists} of packs to be deleted: a prune is at work, or the next one goes on from it.\n"));
            }
            if report.packs_unlisted > 0 {
                let unlisted = number(report.packs_unlisted, "pack");
                text.push_str(&format!("{unlisted} in no index segment: being written, or left by a run that died; the next backup uses what it can.\n"));
            }
            text.push_str(&format!("Checked {snapshots} and {packs}; {read}. {ending}\n"));
            text
        })
    }

    pub(super) fn prune(&self, report: &PruneReport) -> Result<()> {
        self.report(report, || prune::text(report))
    }

    pub(super) fn repair(&self, report: &RepairReport) -> Result<()> {
        self.report(report, || {
            let mut text = String::new();
            for found in &report.findings {
                text.push_str(&format!("{}: {}\n", found.object, found.message));
            }
            let read = units::size(report.bytes_read);
            let healed = match (report.dry_run, report.healed) {
                (_, 0) => String::new(),
                (true, n) => format!(" {} can be healed.", number(n, "object")),
                (false, n) => format!(" {} healed.", number(n, "object")),
            };
            let lost = match report.lost {
                0 => String::new(),
                n => format!(" {} can't be healed.", number(n, "object")),
            };
            let nothing = if report.findings.is_empty() { " Nothing is damaged." } else { "" };
            text.push_str(&format!("Read {read}.{healed}{lost}{nothing}\n"));
            text.push_str(&beyond_healing(report));
            text
        })
    }

    pub(super) fn keys(&self, keys: &[KeyInfo]) -> Result<()> {
        self.answer(&keys, || {
            let cell = |key: &KeyInfo| {
                let id = key.id.to_hex()[..8].to_owned();
                let mark = if key.current { "in use" } else { "" };
                let created = key.created_at.map(local_time).unwrap_or_default();
                vec![id, key.kind.to_owned(), mark.to_owned(), created, key.label.clone().unwrap_or_default()]
            };
            table(&["id", "kind", "", "created", "label"], &keys.iter().map(cell).collect::<Vec<_>>())
        })
    }

    pub(super) fn recipient(&self, recipient: &Recipient) -> Result<()> {
        let value = serde_json::json!({ "recipient": recipient.to_string() });
        self.answer(&value, || format!("{recipient}\n"))
    }

    pub(super) fn recovery_sheet(&self, sheet: &RecoverySheet) -> Result<()> {
        self.answer(sheet, || sheet.to_text())
    }

    pub(super) fn key(&self, verb: &str, id: KeyId) -> Result<()> {
        self.report(&serde_json::json!({ "key": id }), || format!("{verb} {}.\n", id.short()))
    }

    pub(super) fn changed_key(&self, report: &ChangeReport) -> Result<()> {
        self.report(report, || format!("Changed: the key is now {}.\n", report.key.short()))
    }

    pub(super) fn recovery_plan(&self, plan: &RecoveryPlan) -> Result<()> {
        self.answer(plan, || {
            let mut text = format!("From snapshot {} of {}:\n", plan.snapshot.short(), local_time(plan.time));
            for (n, component) in plan.components.iter().enumerate() {
                text.push_str(&format!("{}. {} ({})\n", n + 1, component.name, component.kind));
                for step in &component.steps {
                    let mark = if step.destructive { "  ! " } else { "    " };
                    text.push_str(&format!("{mark}{}\n", step.what));
                }
            }
            for (name, why) in &plan.left_out {
                text.push_str(&format!("Left out: {name}: {why}\n"));
            }
            if plan.components.iter().flat_map(|component| &component.steps).any(|step| step.destructive) {
                text.push_str("What is marked ! removes or overwrites something that exists.\n");
            }
            text
        })
    }

    pub(super) fn recovered(&self, report: &RecoveryReport) -> Result<()> {
        self.report(report, || {
            let mut text = String::new();
            for (name, proofs) in &report.components {
                text.push_str(&format!("Restored {name}.\n"));
                text.extend(proofs.iter().map(|proof| format!("    {proof}\n")));
            }
            text.push_str(&format!("Done in {}.\n", seconds(report.seconds)));
            text
        })
    }
}

fn unwritable(cause: serde_json::Error) -> Error {
    Error::new(ErrorKind::Bug, "A report can't be encoded").cause(cause)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(unwritable)
}

fn line(out: &mut Out, bytes: &[u8]) -> Result<()> {
    written(out.write_all(bytes).and_then(|()| out.write_all(b"\n")))
}

fn component_cells(component: &ComponentReport) -> Vec<String> {
    let stats = &component.stats;
    let is_stored = !matches!(component.status, Status::Failed | Status::Skipped);
    let cell = |text: String| if is_stored { text } else { String::new() };
    let mut note = component.reason.clone().or_else(|| component.completeness.clone()).unwrap_or_default();
    if component.problems > 0 && component.reason.is_none() {
        note = format!("{}; {note}", number(component.problems, "problem"));
    }
    vec![
        component.name.clone(),
        component.kind.clone(),
        status_word(component.status).to_owned(),
        cell(units::count(stats.files)),
        cell(units::size(stats.bytes_logical)),
        cell(units::size(stats.bytes_read)),
        cell(units::size(stats.bytes_new)),
        note,
    ]
}

fn backup_text(report: &BackupReport, target: &Target) -> String {
    let cells: Vec<Vec<String>> = report.components.iter().map(component_cells).collect();
    let mut text = table(&["component", "kind", "status", "files", "size", "read", "new", "proof"], &cells);
    let (stored, took) = (units::size(report.bytes_stored), seconds(report.seconds));
    match &report.snapshot {
        Some(id) => text.push_str(&format!(
            "Snapshot {} is {}: {stored} stored in {} in {took}.\n",
            id.short(),
            status_word(report.status),
            target.location,
        )),
        None => text.push_str(&format!("Nothing was stored; a real run would store about {stored}. It took {took}.\n")),
    }
    text
}

fn snapshot_cells(row: &Row) -> Vec<String> {
    let snapshot = &row.snapshot;
    let size = snapshot.components.iter().map(|component| component.stats.bytes_logical).sum();
    let components: Vec<String> = snapshot
        .components
        .iter()
        .map(|component| match component.status {
            Status::Complete => component.name.clone(),
            status => format!("{} ({})", component.name, status_word(status)),
        })
        .collect();
    vec![
        row.short_id.clone(),
        local_time(snapshot.time),
        snapshot.host.clone(),
        snapshot.platform.clone(),
        status_word(snapshot.status).to_owned(),
        retention::labels(&snapshot.tags, snapshot.pinned),
        units::size(size),
        components.join(", "),
    ]
}

fn show_text(published: &Published) -> String {
    let snapshot = &published.snapshot;
    let mut text = format!("snapshot  {}\nstatus    {}\n", published.id, status_word(snapshot.status));
    for (name, value) in [
        ("platform", snapshot.platform.clone()),
        ("host", snapshot.host.clone()),
        ("user", snapshot.user.clone()),
        ("time", local_time(snapshot.time)),
        ("finished", local_time(snapshot.finished_at)),
        ("tags", snapshot.tags.join(", ")),
        ("pinned", if snapshot.pinned { "until it is unpinned".to_owned() } else { String::new() }),
        ("original", snapshot.original.map(|id| id.short()).unwrap_or_default()),
        ("parent", snapshot.parent.map(|id| id.short()).unwrap_or_default()),
        ("tool", snapshot.tool.clone()),
    ] {
        if !value.is_empty() {
            text.push_str(&format!("{name:9} {value}\n"));
        }
    }
    for component in &snapshot.components {
        text.push('\n');
        text.push_str(&component_text(component));
    }
    text
}

fn component_text(component: &crate::archive::ComponentRecord) -> String {
    let stats = &component.stats;
    let mut text = format!(
        "{} ({}, {}): {}\n",
        component.name,
        component.kind,
        component.role,
        [Some(status_word(component.status)), component.reason.as_deref()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ")
    );
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("    {name:13} {value}\n"));
        }
    };
    if component.root.is_some() {
        let (files, unchanged) = (number(stats.files, "file"), units::count(stats.files_unchanged));
        row("holds", format!("{} in {files} ({unchanged} unchanged)", units::size(stats.bytes_logical)));
        row("read", format!("{}, {} of it new", units::size(stats.bytes_read), units::size(stats.bytes_new)));
    }
    row("compressed", compressed::line(&stats.reflated));
    row("proof", component.completeness.clone().unwrap_or_default());
    row("references", component.references.join(", "));
    row("derived from", component.derived_from.join(", "));
    for (name, version) in &component.versions {
        row(name, version.clone());
    }
    for command in &component.commands {
        let code = command.exit_code.map_or_else(|| "ended by a signal".to_owned(), |code| format!("exit {code}"));
        row("ran", format!("{} ({code})", command.argv.join(" ")));
    }
    let told = |problem: &&Problem| Some(&problem.message) != component.reason.as_ref();
    for problem in component.problems.iter().filter(told) {
        row("problem", format!("{}: {}", problem.subject, problem.message));
    }
    text
}

fn long_text(entry: &Listed) -> String {
    let letter = match entry.kind {
        "directory" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "char-device" => 'c',
        "block-device" => 'b',
        _ => '-',
    };
    let owner = |name: &str, id: u32| if name.is_empty() { id.to_string() } else { name.to_owned() };
    let time = Timestamp::from_second(entry.mtime).map_or_else(|_| entry.mtime.to_string(), local_time);
    let target = entry.target.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
    let mark = if entry.changed_while_read { "  (changed while it was read)" } else { "" };
    format!(
        "{letter}{} {:8} {:8} {:>12} {time} {}{target}{mark}",
        mode_text(entry.mode),
        owner(&entry.user, entry.uid),
        owner(&entry.group, entry.gid),
        entry.size,
        entry.path
    )
}

/// `rwxr-sr-t`
fn mode_text(mode: u32) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(mode_text(0o755), "rwxr-xr-x");
        assert_eq!(mode_text(0o4711), "rws--x--x");
        assert_eq!(mode_text(0o1776), "rwxrwxrwT");
        assert_eq!(mode_text(0o2640), "rw-r-S---");
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(table(&["a", "b"], &[vec!["xx".into(), "y".into()]]), "a   b\nxx  y\n");
    }
}
