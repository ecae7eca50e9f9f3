//! Literate transcripts of the command line: `tests/cli/*.md`, one for each topic, for a person to read.
//!
//! In a block that begins with ```` ```console ````, lines after `$ ` are run by bash (lines after `> ` belong to the same command),
//! and what follows is what they print, standard output and standard error merged. `[..]` fits anything in a line, `...` any
//! number of lines. `? N` ends a command that exits with N; all others exit with 0. The commands of a file share one shell
//! and one directory, written as `/T`. A file that says `<!-- needs mounts -->` runs in a mount namespace of its own.
//!
//! `COMPLINE_BLESS=1` writes what happened into the files instead of comparing. Read the difference before you keep it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test says what went wrong by stopping, and is read more often than it is called"
)]

mod transcript;

use std::path::{Path, PathBuf};
use std::process::Command;

use transcript::{Piece, Step, Transcript};

macro_rules! transcripts {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { play(stringify!($name)); })*
    };
}

transcripts![
    broken_plans,
    browse,
    check,
    compressed,
    copy,
    forget,
    help,
    init,
    interrupt,
    keys,
    names,
    partial,
    paths,
    plan,
    restore,
    secrecy,
    streams,
    trouble,
    usage,
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli")
}

#[test]
fn every_transcript_is_run() {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut listed: Vec<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}

fn play(name: &str) {
    let path = directory().join(format!("{name}.md"));
    let text = std::fs::read_to_string(&path).unwrap();
    let transcript = Transcript::parse(&text);
    if transcript.needs_mounts && !mounts_work() {
        eprintln!("{name}: not run: no mount namespace can be made here");
        return;
    }
    let happened = run(&transcript);
    if std::env::var_os("COMPLINE_BLESS").is_some() {
        std::fs::write(&path, transcript.blessed(&happened)).unwrap();
        return;
    }
    let steps = transcript.pieces.iter().filter_map(Piece::step);
    let wrong: Vec<String> = steps.zip(&happened).filter_map(|(step, happened)| step.complaint(happened)).collect();
    assert!(wrong.is_empty(), "{}:\n{}", path.display(), wrong.join("\n"));
}

fn mounts_work() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// What one command printed, and how it exited.
pub struct Happened {
    /// Line by line.
    pub lines: Vec<String>,
    /// As the shell tells it.
    pub code: i32,
}

/// Runs all commands in one shell: each is a file that the shell evaluates, with its own file for the output. `json` prints
/// the value of a Python expression over the first object `d`, or over all lines, `docs`; `sql` runs statements.
const DRIVER: &str = r#"json() { python3 -c '
import json, sys
text = sys.stdin.read()
try: docs = [json.loads(text)]
except ValueError: docs = [json.loads(line) for line in text.splitlines()]
value = eval(sys.argv[1], {"docs": docs, "d": docs[0] if docs else None})
print(value if isinstance(value, str) else json.dumps(value))' "$1"; }
sql() { python3 -c '
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
for statement in sys.argv[2].split(";"):
    for row in database.execute(statement):
        print(*row, sep="|")
database.commit()' "$@"; }
for step in $(seq 0 $((COUNT - 1))); do
    eval "$(<"$STEPS/$step")" </dev/null >"$STEPS/$step.out" 2>&1
    echo $? >"$STEPS/$step.code"
done"#;

fn run(transcript: &Transcript) -> Vec<Happened> {
    let (work, steps) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let commands: Vec<&Step> = transcript.pieces.iter().filter_map(Piece::step).collect();
    for (n, step) in commands.iter().enumerate() {
        std::fs::write(steps.path().join(n.to_string()), step.command.join("\n")).unwrap();
    }
    let program = Path::new(env!("CARGO_BIN_EXE_compline"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = if transcript.needs_mounts {
        let mut shell = Command::new("unshare");
        shell.args(["--map-root-user", "--mount", "bash"]);
        shell
    } else {
        Command::new("bash")
    };
    shell.args(["--noprofile", "--norc", "-c", DRIVER]).current_dir(work.path()).env_clear();
    shell.env("PATH", path).env("HOME", work.path().join("home")).env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
    shell.env("COMPLINE_CACHE_DIR", work.path().join("cache")).env("COLUMNS", "100");
    shell.env("STEPS", steps.path()).env("COUNT", commands.len().to_string());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "bash: {}", String::from_utf8_lossy(&output.stderr));
    let root = work.path().to_str().unwrap();
    (0..commands.len()).map(|n| happened(&steps.path().join(n.to_string()), root)).collect()
}

fn happened(step: &Path, root: &str) -> Happened {
    let output = std::fs::read(step.with_extension("out")).unwrap_or_default();
    let output = String::from_utf8_lossy(&output).replace(root, "/T");
    let code = std::fs::read_to_string(step.with_extension("code")).unwrap_or_default();
    Happened { lines: output.lines().map(str::to_owned).collect(), code: code.trim().parse().unwrap_or(-1) }
}
