//! From words to verbs: builds what a verb needs, calls it, hands its report to the renderer.

mod copy;
mod retention;

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::CommandFactory;

use super::arguments::{
    Backup, Cli, Command, ExistingChoice, FromKey, Global, Key, NewKey, OverwriteChoice, PlanVerb, Prune, Repair,
    Restore, Serve,
};
use super::environment::variable;
use super::render::{self, Renderer};
use super::terminal::Terminal;
use super::{Ending, unlock};
use crate::archive::snapshots::{Selector, parse_time};
use crate::archive::{FilesSource, Overwrite, RestoreOptions};
use crate::clock::SystemClock;
use crate::commands::backup::{Labels, Work};
use crate::commands::recover::Recovery;
use crate::commands::repair::RepairOptions;
use crate::commands::{self, App, SnapshotPath, Target};
use crate::components::Existing;
use crate::components::files::exclude_set;
use crate::error::{Error, ErrorKind, Result};
use crate::observer::{Context, Ledger};
use crate::pipeline;
use crate::plan::Plan;
use crate::storage::{Location, Rights, StorageErrorKind};
use crate::store::check::DataSubset;
use crate::store::parity::Share;
use crate::store::prune::{Allowance, PruneOptions};
use crate::store::rights::Sort;
use crate::store::{Repository, Unlock, exists};
use crate::units::parse_duration;

/// One run of the program.
struct Session<'s> {
    app: App<'s>,
    global: &'s Global,
    plan: Option<Plan>,
    out: Renderer,
}

/// Runs what was asked for.
pub(super) fn run(cli: Cli) -> Result<Ending> {
    let Cli { global, command } = cli;
    if let Command::Serve(options) = &command {
        return serve(options);
    }
    let interrupt = pipeline::stop_flag();
    listen(&interrupt)?;
    let ledger = Arc::new(Ledger::default());
    let terminal = Terminal::new(&global, ledger.clone());
    let context = Context { clock: &SystemClock, observer: &terminal, interrupt: &interrupt };
    let app = App { context, ledger: &ledger, variable: &variable };
    let out = Renderer { json: global.json, quiet: global.quiet };
    let needs_plan = !matches!(command, Command::Completions { .. } | Command::Version)
        && !matches!(command, Command::Plan(PlanVerb::Schema));
    let plan = if needs_plan { unlock::plan(&global)? } else { None };
    let session = Session { app, global: &global, plan, out };
    let ending = session.verb(command);
    terminal.end();
    ending
}

/// The first signal asks the run to stop in order; the second ends it at once.
fn listen(interrupt: &Arc<AtomicBool>) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let code = i32::from(ErrorKind::Interrupted.exit_code());
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, code, interrupt.clone())
            .and_then(|_| signal_hook::flag::register(signal, interrupt.clone()))
            .map_err(|cause| Error::io("Signals can't be listened to", cause))?;
    }
    Ok(())
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message.into())
}

fn time(text: &str) -> Result<jiff::Timestamp> {
    parse_time(text).ok_or_else(|| {
        usage(format!("`{text}` is no time")).hint("Write 2026-09-01, 2026-09-01T12:00 or 2026-09-01T12:00:00Z")
    })
}

fn waiting_time(text: &str) -> Result<std::time::Duration> {
    parse_duration(text).ok_or_else(|| usage(format!("`{text}` is no time to wait")).hint("Write 30s, 10m or 1h"))
}

fn snapshot_path(text: &OsStr) -> Result<SnapshotPath> {
    SnapshotPath::parse(text.as_bytes())
}

fn selector(text: &OsStr) -> Result<Selector> {
    let parsed = snapshot_path(text)?;
    if parsed.path.is_root() { Ok(parsed.selector) } else { Err(usage("A snapshot is wanted here, without a path")) }
}

impl Session<'_> {
    fn target(&self) -> Result<Target> {
        unlock::target(self.global, self.plan.as_ref(), self.app.variable)
    }

    fn the_plan(&self) -> Result<&Plan> {
        self.plan.as_ref().ok_or_else(|| usage("No plan is named").hint("Name it with -p FILE or COMPLINE_PLAN"))
    }

    fn verb(&self, command: Command) -> Result<Ending> {
        match command {
            Command::Init { label, parity, copy_keys_from, from_key } => {
                self.init(&label, &parity, copy_keys_from.as_deref(), &from_key)
            }
            Command::Backup(options) => self.backup(options),
            Command::Snapshots { tags, component } => self.snapshots(&tags, component.as_deref()),
            Command::Show { snapshot, plan_text } => self.show(&snapshot, plan_text),
            Command::Ls { what, long, recursive } => self.ls(&what, long, recursive),
            Command::Find { pattern, snapshot, inside, long } => self.find(&pattern, snapshot.as_deref(), inside, long),
            Command::Cat { what } => self.cat(&what),
            Command::Diff { before, after, content } => self.diff(&before, &after, content),
            Command::Stats => self.out.stats(&commands::stats::run(self.app, &self.target()?)?).map(|()| self.ending()),
            Command::Restore(options) => self.restore(&options),
            Command::Forget(options) => retention::forget(self, &options),
            Command::Tag(options) => retention::tag(self, options),
            Command::Prune(options) => self.prune(&options),
            Command::Check { read_data, read_data_subset } => self.check(read_data, read_data_subset.as_deref()),
            Command::Repair(options) => self.repair(&options),
            Command::Copy(options) => copy::copy(self, &options),
            Command::Key(verb) => self.key(verb),
            Command::Serve(options) => serve(&options),
            Command::Plan(verb) => self.plan_verb(verb),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "compline", &mut script);
                render::raw(&script).map(|()| Ending::Well)
            }
            Command::Version => self.out.version().map(|()| Ending::Well),
        }
    }

    /// Problems that the observer was told spoil a good ending.
    fn ending(&self) -> Ending {
        if self.app.ledger.problems().is_empty() { Ending::Well } else { Ending::Problems }
    }

    fn init(&self, label: &str, parity: &str, keys_of: Option<&OsStr>, key: &FromKey) -> Result<Ending> {
        let parity = share(parity)?;
        let location = unlock::location(self.global, self.plan.as_ref(), self.app.variable)?;
        let keys_of = keys_of.map(|other| copy::keys_of(self, other, key)).transpose()?;
        let report = self.create(&location, label, parity, keys_of.as_ref())?;
        self.out.init_object(&report).map(|()| Ending::Well)
    }

    fn create(
        &self,
        location: &Location,
        label: &str,
        parity: Share,
        keys_of: Option<&Repository>,
    ) -> Result<commands::init::InitReport> {
        // Asked before a key file is made: a second `init` must leave nothing behind.
        if is_there(location)? {
            return Err(Error::new(
                ErrorKind::RepositoryExists,
                format!("There is a repository at {location} already"),
            )
            .hint("Use it as it is, or choose another location"));
        }
        let (unlock, key_file) = unlock::for_new(self.global, self.plan.as_ref(), self.app.variable)?;
        let report = commands::init::run(self.app, location, &unlock, label, parity, keys_of)?;
        self.out.init(&report, key_file.as_deref())?;
        Ok(report)
    }

    fn backup(&self, options: Backup) -> Result<Ending> {
        if options.init {
            let location = unlock::location(self.global, self.plan.as_ref(), self.app.variable)?;
            if !is_there(&location)? {
                self.create(&location, "first", Share::PACK, None)?;
            }
        }
        let labels = Labels {
            host: options.host.clone().unwrap_or_else(render::host_name),
            user: render::user_name(),
            tags: options.tags.clone(),
            pin: options.pin,
            time: options.time.as_deref().map(time).transpose()?,
            reflate: options.reflate.map(Into::into),
        };
        let target = self.target()?;
        let (only, skip) = (options.only.clone(), options.skip.clone());
        let dry_run = options.dry_run;
        let work = match ad_hoc(options)? {
            Some(work) => work,
            None => Work::Plan { plan: self.backup_plan()?, only: &only, skip: &skip },
        };
        let report = commands::backup::run(self.app, &target, work, &labels, dry_run)?;
        self.out.backup(&report, &target)?;
        Ok(if report.has_problems() { Ending::Problems } else { self.ending() })
    }

    fn backup_plan(&self) -> Result<&Plan> {
        self.plan.as_ref().ok_or_else(|| {
            usage("There is nothing to save: no plan, no path, no stream")
                .hint("Name a plan with -p FILE, or give paths: `compline backup /etc`, or --stdin")
        })
    }

    fn snapshots(&self, tags: &[String], component: Option<&str>) -> Result<Ending> {
        let rows = commands::snapshots::list(self.app, &self.target()?, tags, component)?;
        self.out.snapshots(&rows)?;
        Ok(self.ending())
    }

    fn show(&self, what: &OsStr, plan_text: bool) -> Result<Ending> {
        let published = commands::snapshots::show(self.app, &self.target()?, &snapshot_path(what)?)?;
        if plan_text {
            let text = published.snapshot.plan.as_deref().ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("Snapshot {} was made without a plan", published.id.short()))
            })?;
            render::raw(text.as_bytes())?;
        } else {
            self.out.show(&published)?;
        }
        Ok(Ending::Well)
    }

    fn ls(&self, what: &OsStr, long: bool, recursive: bool) -> Result<Ending> {
        let mut out = render::stdout();
        commands::listing::ls(self.app, &self.target()?, &snapshot_path(what)?, recursive, &mut |row| {
            self.out.entry(&mut out, row, long)
        })?;
        render::flush(&mut out).map(|()| self.ending())
    }

    fn find(&self, pattern: &str, snapshot: Option<&OsStr>, inside: bool, long: bool) -> Result<Ending> {
        let pattern = commands::find::Pattern::new(pattern)?;
        let only = snapshot.map(selector).transpose()?;
        let mut out = render::stdout();
        let target = self.target()?;
        commands::find::run(self.app, &target, &pattern, only.as_ref(), inside, &mut |found| {
            self.out.found(&mut out, found, long)
        })?;
        render::flush(&mut out).map(|()| self.ending())
    }

    fn cat(&self, what: &OsStr) -> Result<Ending> {
        let what = snapshot_path(what)?;
        if what.path.is_root() {
            return Err(usage("A file is wanted").hint("Name it as SNAP:PATH, for example latest:/files/etc/hosts"));
        }
        let mut out = render::stdout();
        commands::listing::cat(self.app, &self.target()?, &what, &mut out).map(|_| self.ending())
    }

    fn diff(&self, before: &OsStr, after: &OsStr, content: bool) -> Result<Ending> {
        let (before, after) = (snapshot_path(before)?, snapshot_path(after)?);
        let mut out = render::stdout();
        let mut totals = render::DiffTotals::default();
        commands::diff::run(self.app, &self.target()?, &before, &after, &mut |difference| {
            self.out.difference(&mut out, difference, content, &mut totals)
        })?;
        self.out.diff_totals(&mut out, &totals)?;
        render::flush(&mut out).map(|()| self.ending())
    }

    fn check(&self, read_data: bool, subset: Option<&str>) -> Result<Ending> {
        let subset = match subset {
            None if read_data => DataSubset::All,
            None => DataSubset::Nothing,
            Some(text) => DataSubset::parse(text)
                .ok_or_else(|| usage(format!("`{text}` is no part of the data")).hint("Write 2/7, 5% or 500MiB"))?,
        };
        let report = commands::check::run(self.app, &self.target()?, subset)?;
        self.out.check(&report)?;
        Ok(if report.problems.is_empty() { Ending::Well } else { Ending::Damage })
    }

    fn prune(&self, options: &Prune) -> Result<Ending> {
        let allowance = Allowance::parse(&options.max_unused).ok_or_else(|| {
            usage(format!("`{}` is no share of a repository", options.max_unused)).hint("Write 5%, 2GiB or unlimited")
        })?;
        let wait = waiting_time(&options.wait)?;
        let options = PruneOptions { allowance, wait, dry_run: options.dry_run };
        let report = commands::prune::run(self.app, &self.target()?, options)?;
        self.out.prune(&report)?;
        Ok(self.ending())
    }

    fn repair(&self, options: &Repair) -> Result<Ending> {
        let location = |text: &String| {
            let parsed = text.parse::<Location>().map(|location| location.equipped(self.app.variable));
            // The text may hold a password, and the cause says what is wrong with it.
            parsed.map_err(|cause| usage("What --from names is no location").cause(cause))
        };
        let options = RepairOptions {
            dry_run: options.dry_run,
            from: options.from.iter().map(location).collect::<Result<_>>()?,
            wait: waiting_time(&options.wait)?,
        };
        let report = commands::repair::run(self.app, &self.target()?, &options)?;
        self.out.repair(&report)?;
        Ok(if report.leaves_damage() { Ending::Damage } else { self.ending() })
    }

    fn key(&self, verb: Key) -> Result<Ending> {
        if let Key::Generate { file } = &verb {
            let recipient = unlock::make_identity(file)?;
            return self.out.recipient(&recipient).map(|()| Ending::Well);
        }
        let target = self.target()?;
        match verb {
            Key::Generate { .. } => {}
            Key::RecoverySheet => self.out.recovery_sheet(&commands::keys::recovery_sheet(self.app, &target)?)?,
            Key::List => self.out.keys(&commands::keys::list(self.app, &target)?)?,
            Key::Add { key: options, write_only, read_only } => {
                let sort = match (write_only, read_only) {
                    (true, _) => Sort::WriteOnly,
                    (_, true) => Sort::ReadOnly,
                    _ => Sort::Full,
                };
                let id = self.with_new_key(&target, &options, |repository, unlock| {
                    commands::keys::add(
                        self.app,
                        repository,
                        unlock,
                        options.label.as_deref().unwrap_or_default(),
                        sort,
                    )
                })?;
                self.out.key("Added", id)?;
            }
            Key::Remove { id } => self.out.key("Removed", commands::keys::remove(&target, &id)?)?,
            Key::Passwd(options) => {
                let report = self.with_new_key(&target, &options, |repository, unlock| {
                    commands::keys::change(self.app, repository, unlock, options.label.as_deref())
                })?;
                self.out.changed_key(&report)?;
            }
        }
        Ok(self.ending())
    }

    /// Does something with a new key, if the one in use may. A key file that was made for nothing goes again: it opens nothing, and
    /// would be in the way of the next attempt.
    fn with_new_key<T>(
        &self,
        target: &Target,
        options: &NewKey,
        publish: impl FnOnce(&Repository, &Unlock) -> Result<T>,
    ) -> Result<T> {
        let repository = target.open_fully()?;
        let unlock = unlock::new_key(options, self.app.variable)?;
        publish(&repository, &unlock).inspect_err(|_| {
            let _left_behind_at_worst = options.key_file_to_make.as_ref().map(std::fs::remove_file);
        })
    }

    fn plan_verb(&self, verb: PlanVerb) -> Result<Ending> {
        let json = self.global.json;
        let pretty = |value: &serde_json::Value| format!("{value:#}\n");
        let text = match verb {
            PlanVerb::Schema => pretty(&commands::plan::schema()),
            PlanVerb::Check => {
                let checked = commands::plan::check(self.the_plan()?);
                if json { pretty(&checked.to_json()) } else { checked.to_text() }
            }
            PlanVerb::Show if json => pretty(&commands::plan::show_json(self.the_plan()?)),
            PlanVerb::Show => commands::plan::show(self.the_plan()?),
            PlanVerb::Graph { dot: true } => commands::plan::graph_dot(self.the_plan()?),
            PlanVerb::Graph { dot: false } => commands::plan::graph(self.the_plan()?),
        };
        render::raw(text.as_bytes()).map(|()| Ending::Well)
    }

    fn restore(&self, options: &Restore) -> Result<Ending> {
        match options.target.clone() {
            Some(into) => self.restore_files(&into, options),
            None => self.recover(options),
        }
    }

    fn restore_files(&self, into: &std::path::Path, options: &Restore) -> Result<Ending> {
        let mut how = RestoreOptions {
            delete: options.delete,
            verify: options.verify,
            include: exclude_set(&options.include)?,
            exclude: exclude_set(&options.exclude)?,
            ..RestoreOptions::default()
        };
        how.overwrite = match options.overwrite {
            OverwriteChoice::Always => Overwrite::Always,
            OverwriteChoice::IfChanged => Overwrite::IfChanged,
            OverwriteChoice::IfNewer => Overwrite::IfNewer,
            OverwriteChoice::Never => Overwrite::Never,
        };
        if options.numeric_owner {
            how.ownership = crate::archive::restore::Ownership::Numbers;
        }
        if options.no_owner {
            how.ownership = crate::archive::restore::Ownership::Leave;
        }
        let what = snapshot_path(&options.what)?;
        let report = commands::restore::run(self.app, &self.target()?, &what, into, &how)?;
        self.out.restore(&report)?;
        Ok(if report.summary.problems > 0 { Ending::Problems } else { self.ending() })
    }

    fn recover(&self, options: &Restore) -> Result<Ending> {
        let Some(plan) = &self.plan else {
            return Err(usage("Where to restore to is not said")
                .hint("Give --target DIR for files, or a plan (-p FILE) for components"));
        };
        let recovery = recovery(options)?;
        let target = self.target()?;
        let report = commands::recover::run(self.app, &target, plan, &recovery, &mut |decided| {
            // One object for programs: what was decided, or what was done.
            if options.plan_only || !(self.global.quiet || self.global.json) {
                self.out.recovery_plan(decided)?;
            }
            if options.plan_only { Ok(false) } else { agreed(options.yes) }
        })?;
        if let Some(report) = report {
            self.out.recovered(&report)?;
        }
        Ok(self.ending())
    }
}

/// Without plan, repository and signals: whoever ends it ends it, and leaves what a crash leaves.
fn serve(options: &Serve) -> Result<Ending> {
    let rights = match (options.read_only, options.allow_prune) {
        (true, _) => Rights::ReadOnly,
        (_, true) => Rights::AllowPrune,
        _ => Rights::AppendOnly,
    };
    if std::io::stdin().is_terminal() {
        return Err(usage("A terminal is no client")
            .hint("ssh:// starts this by itself; on a server it stands in authorized_keys (docs: Storage by SSH)"));
    }
    crate::storage::serve(&options.path, rights, std::io::stdin().lock(), std::io::stdout())?;
    Ok(Ending::Well)
}

/// A share of parity, said in hundredths with at most one decimal.
fn share(text: &str) -> Result<Share> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let thousandths = match (whole.parse::<u16>(), tenth.parse::<u16>()) {
        (Ok(whole), Ok(tenth)) if number.split('.').nth(1).is_none_or(|digits| digits.len() == 1) => {
            whole.checked_mul(10).and_then(|tens| tens.checked_add(tenth))
        }
        _ => None,
    };
    thousandths
        .and_then(Share::of_packs)
        .ok_or_else(|| usage(format!("`{text}` is no share of parity")).hint("Write 0 for none, 2, 0.5, or at most 50"))
}

/// Whether there is a repository. Nothing is made in order to find out.
fn is_there(location: &Location) -> Result<bool> {
    match location.open() {
        Ok(storage) => exists(storage.as_ref()),
        Err(error) if error.kind() == StorageErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What the command line asks for instead of the plan.
fn ad_hoc(options: Backup) -> Result<Option<Work<'static>>> {
    if options.stdin_from_command {
        let argv: Vec<String> = options.paths.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if argv.is_empty() {
            return Err(usage("No program is given").hint("Write --stdin-from-command -- PROGRAM WORDS…"));
        }
        return Ok(Some(Work::Command { name: stream_name(options.stdin_name)?, argv }));
    }
    if options.stdin {
        if std::io::stdin().is_terminal() {
            return Err(usage("Standard input is a terminal").hint("Pipe something in, or use --stdin-from-command"));
        }
        return Ok(Some(Work::Stream { name: stream_name(options.stdin_name)?, input: Box::new(std::io::stdin()) }));
    }
    if options.paths.is_empty() {
        return Ok(None);
    }
    Ok(Some(Work::Files(FilesSource {
        paths: options.paths,
        exclude: exclude_set(&options.exclude)?,
        one_file_system: options.one_file_system,
        exclude_caches: options.exclude_caches,
    })))
}

fn recovery(options: &Restore) -> Result<Recovery> {
    let selector = match &options.at {
        Some(text) if options.what == "latest" => Selector::At(time(text)?),
        Some(_) => return Err(usage("--at and a snapshot can't both say what to restore")),
        None => selector(&options.what)?,
    };
    Ok(Recovery {
        selector,
        only: options.only.clone(),
        existing: options.existing.map(|choice| match choice {
            ExistingChoice::Fail => Existing::Fail,
            ExistingChoice::Skip => Existing::Skip,
            ExistingChoice::Update => Existing::Update,
            ExistingChoice::Replace => Existing::Replace,
        }),
        force_version: options.force_version.clone(),
        root: options.root.clone().map(|root| std::path::absolute(&root).unwrap_or(root)),
    })
}

/// Asks, unless --yes was given.
fn agreed(yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    let unasked = || {
        Error::new(ErrorKind::UnsafeTarget, "Nothing was restored: nobody agreed")
            .hint("Run it again with --yes, or with --plan-only to see what it would do")
    };
    if !std::io::stdin().is_terminal() {
        return Err(unasked());
    }
    let mut out = std::io::stderr();
    let _still_readable = write!(out, "Do this? Type yes: ").and_then(|()| out.flush());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|cause| Error::io("The answer can't be read", cause))?;
    if answer.trim() == "yes" { Ok(true) } else { Err(unasked()) }
}

/// A stream becomes a component, so its name must be one that a path can begin with.
fn stream_name(name: String) -> Result<String> {
    let path = PathBuf::from(&name);
    let is_name = crate::archive::entry::name_is_valid(name.as_bytes()) && path.file_name().is_some();
    if is_name {
        Ok(name)
    } else {
        Err(usage(format!("`{name}` can't be the name of a stream")).hint("Use a file name without /"))
    }
}
