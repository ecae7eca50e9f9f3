//! What can be said on the command line. The texts here are the manual that operators read first.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::archive::retention::Count;
use crate::archive::snapshots::Selector;
use crate::reflate::Policy;
use crate::units::{SPAN_SYNTAX, Span, parse_span};

/// Deduplicating, encrypted snapshots of whole platforms.
#[derive(Debug, Parser)]
#[command(name = "compline", version, about, max_term_width = 110, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "\
Snapshots are named by id or its beginning, latest, latest~2, @2026-09-01T12:00 (newest complete one at or \
before), tag:NAME. Paths in a snapshot begin with the component: latest:/database/db/app.sql

Exit codes: 0 ok, 1 failed and nothing committed, 2 usage, 3 committed but partial or with problems, 4 refused by \
a gate, 5 damage found, 6 version guard, 7 unsafe target, 10 no repository, 12 wrong key, 13 invalid plan, \
130 interrupted";

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[expect(clippy::doc_markdown, reason = "the help shows it as it is")]
pub(super) struct Global {
    /// Where the repository lies: a path, ssh://user@host:port/path, sftp://user@host:port/path, s3://bucket/prefix,
    /// azblob://container/prefix (default: what the plan says) [env: COMPLINE_REPO]
    #[arg(short, long, global = true, value_name = "LOCATION")]
    pub repo: Option<OsString>,
    /// The plan file [env: COMPLINE_PLAN]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Read the passphrase from the first line of a file [env: COMPLINE_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Run a program that prints the passphrase; its words are split at blanks
    /// [env: COMPLINE_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<String>,
    /// Open the repository with a key file instead of a passphrase [env: COMPLINE_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Directory of local caches; may be deleted at any time [env: COMPLINE_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Write no more than so much a second to the repository: 20MB, 500KiB
    #[arg(long, global = true, value_name = "RATE")]
    pub limit_upload: Option<String>,
    /// Read no more than so much a second from the repository: 20MB, 500KiB
    #[arg(long, global = true, value_name = "RATE")]
    pub limit_download: Option<String>,
    /// Ask the storage no more than so often a second
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit_requests: Option<u64>,
    /// Ask the storage no more than so many things at once; a server over HTTP never more than 16
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub concurrency: Option<u64>,
    /// Print JSON for programs: an object, for lists an array, or one object on each line where the list can be long
    #[arg(long, global = true)]
    pub json: bool,
    /// Print problems and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print details
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// No progress bars (there are none without a terminal)
    #[arg(long, global = true)]
    pub no_progress: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a repository, and the key file if --key-file names one that does not exist
    Init {
        /// What to call the first key
        #[arg(long, default_value = "first", value_name = "NAME")]
        label: String,
        /// Space for healing damaged packs, in hundredths of their length: 0 (none) to 50
        #[arg(long, default_value = "2", value_name = "PERCENT")]
        parity: String,
        /// Give it the keys of this repository: copies between the two take stored frames over, and each can heal the other
        #[arg(long, value_name = "LOCATION")]
        copy_keys_from: Option<OsString>,
        #[command(flatten)]
        from_key: FromKey,
    },
    /// Save what the plan says, or the given paths, or a stream, as one snapshot
    Backup(Backup),
    /// List snapshots
    Snapshots {
        /// Only those with this tag (all of them, if given again)
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// Only those that hold this component
        #[arg(long, value_name = "NAME")]
        component: Option<String>,
    },
    /// Show everything that is known of a snapshot
    Show {
        /// Which snapshot
        #[arg(default_value = "latest", value_name = "SNAP")]
        snapshot: OsString,
        /// Print the plan that it was made with
        #[arg(long)]
        plan_text: bool,
    },
    /// List components, directories and files of a snapshot
    Ls {
        /// Which snapshot, and where in it
        #[arg(default_value = "latest", value_name = "SNAP[:PATH]")]
        what: OsString,
        /// Mode, owner, size and time too
        #[arg(short, long)]
        long: bool,
        /// Everything below too
        #[arg(short = 'R', long)]
        recursive: bool,
    },
    /// Find names in all snapshots: a pattern with / is matched against whole paths
    Find {
        /// A pattern: *, ?, [abc], {a,b}, **
        pattern: String,
        /// Only in this snapshot
        #[arg(long, value_name = "SNAP")]
        snapshot: Option<OsString>,
        /// In tar archives too, plain or compressed with gzip or zstd
        #[arg(long)]
        inside: bool,
        /// Mode, owner, size and time too
        #[arg(short, long)]
        long: bool,
    },
    /// Write a file of a snapshot to standard output
    Cat {
        /// Which snapshot, and which file
        #[arg(value_name = "SNAP:PATH")]
        what: OsString,
    },
    /// Show what changed from one snapshot to another: + added, - removed, M content, m metadata
    Diff {
        /// The earlier one
        #[arg(value_name = "SNAP[:PATH]")]
        before: OsString,
        /// The later one
        #[arg(value_name = "SNAP[:PATH]")]
        after: OsString,
        /// Leave out changes of owner, mode, times and attributes
        #[arg(long)]
        content: bool,
    },
    /// Show how much is stored for how much
    Stats,
    /// Bring files back into a directory (with --target), or components back into the platform
    Restore(Restore),
    /// Remove snapshots: those that are named, or those that no rule keeps
    Forget(Box<Forget>),
    /// Change the tags of snapshots, or pin them; their ids change
    Tag(Tag),
    /// Delete what no snapshot needs
    Prune(Prune),
    /// Check that everything is there and as it was written
    Check {
        /// Read and verify every byte of every pack
        #[arg(long, conflicts_with = "read_data_subset")]
        read_data: bool,
        /// Read and verify a part: n/t (the n-th of t parts), 5%, or a size such as 500MiB
        #[arg(long, value_name = "PART")]
        read_data_subset: Option<String>,
    },
    /// Heal what is damaged, save what can be read of the rest, and write snapshots without what is lost
    Repair(Repair),
    /// Copy snapshots from another repository into this one, or as the plan's [[copy]] says; what is there is passed over
    Copy(Copy),
    /// Who can open the repository
    #[command(subcommand)]
    Key(Key),
    /// Give a client at the other end of a line access to a directory: what ssh:// starts, and a forced command
    Serve(Serve),
    /// Look at the plan
    #[command(subcommand)]
    Plan(PlanVerb),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Backup {
    /// Files and directories to save instead of what the plan says
    pub paths: Vec<PathBuf>,
    /// Create the repository if there is none
    #[arg(long)]
    pub init: bool,
    /// Only this component of the plan (may be given again)
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    pub only: Vec<String>,
    /// Not this component of the plan (may be given again)
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    pub skip: Vec<String>,
    /// Label the snapshot (may be given again)
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Keep the snapshot until it is unpinned, whatever the rules of retention say
    #[arg(long)]
    pub pin: bool,
    /// Host that the snapshot is of (default: this one)
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Nominal time of the snapshot (default: now)
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Leave out what matches (may be given again); a pattern without / fits any name
    #[arg(long, value_name = "PATTERN", requires = "paths")]
    pub exclude: Vec<String>,
    /// Stay on the file systems of the given paths
    #[arg(short = 'x', long, requires = "paths")]
    pub one_file_system: bool,
    /// Leave out directories that hold a CACHEDIR.TAG
    #[arg(long, requires = "paths")]
    pub exclude_caches: bool,
    /// Whether gzip'd data is stored as its plain bytes: where it pays, wherever it can be, or nowhere
    #[arg(long, value_name = "WHEN")]
    pub reflate: Option<ReflateChoice>,
    /// Read and count everything, store nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Save standard input, under the name of --stdin-name
    #[arg(long, conflicts_with_all = ["paths", "only", "skip"])]
    pub stdin: bool,
    /// Name of the stream
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    pub stdin_name: String,
    /// Save what a program prints, if it exits 0: --stdin-from-command -- PROGRAM WORDS…
    #[arg(long, conflicts_with_all = ["stdin", "only", "skip"])]
    pub stdin_from_command: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ReflateChoice {
    Auto,
    Always,
    Never,
}

impl From<ReflateChoice> for Policy {
    fn from(choice: ReflateChoice) -> Self {
        match choice {
            ReflateChoice::Auto => Self::Auto,
            ReflateChoice::Always => Self::Always,
            ReflateChoice::Never => Self::Never,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OverwriteChoice {
    /// Write every file again
    Always,
    /// Leave files that are right by length and time
    IfChanged,
    /// Leave files that are newer than in the snapshot
    IfNewer,
    /// Leave every file that exists
    Never,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ExistingChoice {
    /// Refuse (exit code 7)
    Fail,
    /// Leave what exists, restore the rest
    Skip,
    /// Overwrite what differs, keep the rest
    Update,
    /// Remove what exists, then restore
    Replace,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Restore {
    /// Which snapshot, and with --target where in it
    #[arg(default_value = "latest", value_name = "SNAP[:PATH]")]
    pub what: OsString,
    /// Bring files back into this directory
    #[arg(short, long, value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Remove from the target what the snapshot lacks
    #[arg(long, requires = "target")]
    pub delete: bool,
    /// What to do with files that exist
    #[arg(long, value_enum, default_value = "if-changed", requires = "target")]
    pub overwrite: OverwriteChoice,
    /// Read back everything that was written, take nothing as right by its looks
    #[arg(long, requires = "target")]
    pub verify: bool,
    /// Only what matches, as a path below the target (may be given again)
    #[arg(long, value_name = "PATTERN", requires = "target")]
    pub include: Vec<String>,
    /// Not what matches (may be given again)
    #[arg(long, value_name = "PATTERN", requires = "target")]
    pub exclude: Vec<String>,
    /// Set owners by recorded number instead of by name
    #[arg(long, requires = "target", conflicts_with = "no_owner")]
    pub numeric_owner: bool,
    /// Let restored files belong to whoever restores them
    #[arg(long, requires = "target")]
    pub no_owner: bool,
    /// Only this component of the plan (may be given again)
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    pub only: Vec<String>,
    /// The newest complete snapshot at or before this time
    #[arg(long, value_name = "TIME", conflicts_with = "target")]
    pub at: Option<String>,
    /// Print what would be done, in order, and do nothing
    #[arg(long, conflicts_with = "target")]
    pub plan_only: bool,
    /// Do not ask
    #[arg(short = 'y', long, conflicts_with = "target")]
    pub yes: bool,
    /// What to do with state that is in the way (default: what the plan says)
    #[arg(long, value_enum, conflicts_with = "target")]
    pub existing: Option<ExistingChoice>,
    /// Restore although the versions do not fit, for this reason
    #[arg(long, value_name = "REASON", conflicts_with = "target")]
    pub force_version: Option<String>,
    /// Restore files below this directory instead of to their own places
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    pub root: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Forget {
    /// Which snapshots; a tag (tag:NAME) stands for every one that has it
    #[arg(value_name = "SNAP", conflicts_with_all = ["tags", "host", "platform", "group_by", "time_zone", "allow_empty"])]
    pub snapshots: Vec<OsString>,
    /// Only those with this tag (all of them, if given again); others are left alone
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only those of this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only those of this platform; '' for those without a plan
    #[arg(long, value_name = "NAME")]
    pub platform: Option<String>,
    /// Apply the rules to each group of snapshots that are equal in these: platform, host, components, tags; '' for
    /// one group of all (default: what the plan says, else platform,host,components)
    #[arg(short, long, value_name = "WORDS")]
    pub group_by: Option<String>,
    /// Time zone in which days and weeks begin (default: the plan's, else that of this machine)
    #[arg(long, value_name = "NAME")]
    pub time_zone: Option<String>,
    /// Let the rules remove every snapshot of a group
    #[arg(long)]
    pub allow_empty: bool,
    /// Give the space back at once, as `compline prune` does
    #[arg(long)]
    pub prune: bool,
    /// Say what would be removed and why, remove nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    // Last, because what follows would stand under its heading.
    #[command(flatten)]
    pub rules: RuleOptions,
}

#[derive(Debug, Args)]
#[command(
    next_help_heading = "Rules (default: the plan's); N may be unlimited, SPAN is such as 12h, 2d, 8w, 6mo, 1y6mo"
)]
pub(super) struct RuleOptions {
    /// Keep the newest N
    #[arg(short = 'l', long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_last: Option<Count>,
    /// Keep the newest of each of the last N minutes that have one
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_minutely: Option<Count>,
    /// Keep the newest of each of the last N hours
    #[arg(short = 'H', long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_hourly: Option<Count>,
    /// Keep the newest of each of the last N days
    #[arg(short = 'd', long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_daily: Option<Count>,
    /// Keep the newest of each of the last N weeks, which begin on Monday
    #[arg(short = 'w', long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_weekly: Option<Count>,
    /// Keep the newest of each of the last N months
    #[arg(short = 'm', long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_monthly: Option<Count>,
    /// Keep the newest of each of the last N quarters
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_quarter_yearly: Option<Count>,
    /// Keep the newest of each of the last N half-years
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_half_yearly: Option<Count>,
    /// Keep the newest of each of the last N years
    #[arg(short = 'y', long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub keep_yearly: Option<Count>,
    /// Keep everything younger than SPAN, counted back from the newest
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within: Option<Span>,
    /// Keep the newest of each minute younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_minutely: Option<Span>,
    /// Keep the newest of each hour younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_hourly: Option<Span>,
    /// Keep the newest of each day younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_daily: Option<Span>,
    /// Keep the newest of each week younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_weekly: Option<Span>,
    /// Keep the newest of each month younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_monthly: Option<Span>,
    /// Keep the newest of each quarter younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_quarter_yearly: Option<Span>,
    /// Keep the newest of each half-year younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_half_yearly: Option<Span>,
    /// Keep the newest of each year younger than SPAN
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub keep_within_yearly: Option<Span>,
    /// Keep those with this tag; a,b: with both (may be given again)
    #[arg(long = "keep-tag", value_name = "TAG")]
    pub keep_tags: Vec<String>,
    /// Keep this one, by its id or the beginning of it (may be given again)
    #[arg(long = "keep-id", value_name = "ID", value_parser = id_prefix)]
    pub keep_ids: Vec<String>,
    /// Let partial snapshots count like complete ones and displace them
    #[arg(long)]
    pub count_partial: bool,
}

fn count(text: &str) -> Result<Count, String> {
    Count::parse(text).ok_or_else(|| "write a number, or unlimited".to_owned())
}

fn span(text: &str) -> Result<Span, String> {
    parse_span(text).ok_or_else(|| format!("write {SPAN_SYNTAX}"))
}

fn id_prefix(text: &str) -> Result<String, String> {
    match text.parse() {
        Ok(Selector::Prefix(prefix)) => Ok(prefix),
        _ => Err("write an id or its beginning".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(super) struct Tag {
    /// Which snapshots
    #[arg(required = true, value_name = "SNAP")]
    pub snapshots: Vec<OsString>,
    /// Give them this tag too (may be given again)
    #[arg(long, value_name = "TAG", group = "change", value_parser = tag)]
    pub add: Vec<String>,
    /// Take this tag from them (may be given again)
    #[arg(long, value_name = "TAG", group = "change")]
    pub remove: Vec<String>,
    /// Give them this tag instead of all they have (may be given again); '' for none
    #[arg(long, value_name = "TAG", group = "change", conflicts_with_all = ["add", "remove"])]
    pub set: Vec<String>,
    /// Keep them until they are unpinned, whatever the rules of retention say
    #[arg(long, group = "change")]
    pub pin: bool,
    /// Leave them to the rules of retention again
    #[arg(long, group = "change", conflicts_with = "pin")]
    pub unpin: bool,
}

fn tag(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("a tag has at least one letter".to_owned()) } else { Ok(text.to_owned()) }
}

#[derive(Debug, Args)]
pub(super) struct Repair {
    /// Say what could be done, write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// A repository with the same keys, such as a mirror, that may have what is lost (may be given again)
    #[arg(long, value_name = "LOCATION")]
    pub from: Vec<String>,
    /// How long to wait for backups that began before, if packs have to go
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub wait: String,
}

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "the help shows it as it is")]
pub(super) struct Copy {
    /// Which snapshots (default: all); a tag (tag:NAME) stands for every one that has it
    #[arg(value_name = "SNAP", conflicts_with_all = ["tags", "host", "platform"])]
    pub snapshots: Vec<OsString>,
    /// The repository to copy from (default: with [[copy]] in the plan, from its repository into those)
    /// [env: COMPLINE_FROM_REPO]
    #[arg(long, value_name = "LOCATION")]
    pub from: Option<OsString>,
    #[command(flatten)]
    pub from_key: FromKey,
    /// Only those with this tag (all of them, if given again)
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only those of this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only those of this platform; '' for those without a plan
    #[arg(long, value_name = "NAME")]
    pub platform: Option<String>,
    /// Say what would be copied, copy nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// What opens the repository to copy from.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "the help shows it as it is")]
pub(super) struct FromKey {
    /// Read the passphrase of that repository from the first line of a file (default: what opens this one)
    /// [env: COMPLINE_FROM_PASSWORD_FILE]
    #[arg(id = "from_password_file", long = "from-password-file", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Run a program that prints the passphrase of that repository; its words are split at blanks
    /// [env: COMPLINE_FROM_PASSWORD_COMMAND]
    #[arg(id = "from_password_command", long = "from-password-command", value_name = "COMMAND")]
    pub password_command: Option<String>,
    /// Open that repository with a key file [env: COMPLINE_FROM_KEY_FILE]
    #[arg(id = "from_key_file", long = "from-key-file", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// How much may stay unused before packs are rewritten: a share of what is needed, a size, or `unlimited`
    #[arg(long, default_value = "5%", value_name = "SHARE")]
    pub max_unused: String,
    /// How long to wait for backups that began before
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub wait: String,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("rights"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Serve {
    /// The directory of the repository
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Speak over standard input and output
    #[arg(long, required = true)]
    pub stdio: bool,
    /// Let clients add, but neither change nor delete what others put (the default)
    #[arg(long, group = "rights")]
    pub append_only: bool,
    /// Let clients look
    #[arg(long, group = "rights")]
    pub read_only: bool,
    /// Let clients do everything
    #[arg(long, group = "rights")]
    pub allow_prune: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Add a passphrase, a key file or a recipient
    Add {
        #[command(flatten)]
        key: NewKey,
        /// For a host that is to back up and not to read: no ls, no restore, no deltas
        #[arg(long, conflicts_with = "read_only")]
        write_only: bool,
        /// For whoever is to look, check and restore, and to change nothing
        #[arg(long)]
        read_only: bool,
    },
    /// Make an identity file, for whoever is to be a recipient; what it prints is public
    Generate {
        /// The file to make, readable by its owner alone; it opens repositories as --key-file
        file: PathBuf,
    },
    /// Print what is needed to open the repository when all else is gone: for paper, in a safe place
    RecoverySheet,
    /// List keys
    List,
    /// Remove a key
    Remove {
        /// Its id or the beginning of it
        id: String,
    },
    /// Replace the passphrase or key file in use by a new one
    Passwd(NewKey),
}

#[derive(Debug, Args)]
pub(super) struct NewKey {
    /// What to call it; a changed key keeps its name without
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Read the new passphrase from the first line of a file
    #[arg(long = "new-password-file", value_name = "FILE", conflicts_with_all = ["key_file_to_make", "recipient"])]
    pub password_file_to_read: Option<PathBuf>,
    /// Make a new key file here
    #[arg(long = "new-key-file", value_name = "FILE", conflicts_with = "recipient")]
    pub key_file_to_make: Option<PathBuf>,
    /// Whoever has the identity file of this recipient can open the repository: compline-recipient-1:…
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Option<String>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum PlanVerb {
    /// Check that the plan is valid
    Check,
    /// Print the plan with all defaults filled in
    Show,
    /// Print the orders of capture and of restore
    Graph {
        /// For Graphviz
        #[arg(long)]
        dot: bool,
    },
    /// Print the JSON Schema of plans, for editors
    Schema,
}
