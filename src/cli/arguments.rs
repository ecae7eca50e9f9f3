//! What can be said on the command line. The texts here are the manual that operators read first.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
pub(super) struct Global {
    /// Where the repository lies: a path (default: what the plan says)
    #[arg(short, long, global = true, env = "COMPLINE_REPO", value_name = "LOCATION", hide_env_values = true)]
    pub repo: Option<OsString>,
    /// The plan file
    #[arg(short, long, global = true, env = "COMPLINE_PLAN", value_name = "FILE", hide_env_values = true)]
    pub plan: Option<PathBuf>,
    /// Read the passphrase from the first line of a file
    #[arg(long, global = true, env = "COMPLINE_PASSWORD_FILE", value_name = "FILE", hide_env_values = true)]
    pub password_file: Option<PathBuf>,
    /// Run a program that prints the passphrase; its words are split at blanks
    #[arg(long, global = true, env = "COMPLINE_PASSWORD_COMMAND", value_name = "COMMAND", hide_env_values = true)]
    pub password_command: Option<String>,
    /// Open the repository with a key file instead of a passphrase
    #[arg(long, global = true, env = "COMPLINE_KEY_FILE", value_name = "FILE", hide_env_values = true)]
    pub key_file: Option<PathBuf>,
    /// Directory of local caches; may be deleted at any time
    #[arg(long, global = true, env = "COMPLINE_CACHE_DIR", value_name = "DIR", hide_env_values = true)]
    pub cache_dir: Option<PathBuf>,
    /// Print one JSON object (for lists: one on each line) for programs
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
    /// Who can open the repository
    #[command(subcommand)]
    Key(Key),
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

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Add a passphrase or key file
    Add(NewKey),
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
    /// What to call it
    #[arg(long, default_value = "", value_name = "NAME")]
    pub label: String,
    /// Read the new passphrase from the first line of a file
    #[arg(long = "new-password-file", value_name = "FILE", conflicts_with = "key_file_to_make")]
    pub password_file_to_read: Option<PathBuf>,
    /// Make a new key file here
    #[arg(long = "new-key-file", value_name = "FILE")]
    pub key_file_to_make: Option<PathBuf>,
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
