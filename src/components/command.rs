//! Kind `command`: whatever a program prints is the state, and another program takes it back.
//!
//! That a program exits 0 doesn't prove that its output is whole; a plan can say what does (`check`). Without any check
//! the record says that nothing but exit status was seen. An empty stream is refused unless the plan sets
//! `min_bytes` to 0, because the most common broken dump is an empty one.

mod check;
mod json;
mod normalise;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::check::{CHECK_FIELDS, Check, Inspector};
use self::normalise::{Normaliser, Normalising};
use super::process::{Chain, Input, Limits, Program, Rewrite};
use super::{CaptureEnvironment, Captured, Component, Existing, RestoreEnvironment, RestoreStep, Restored};
use crate::archive::snapshot::CommandRecord;
use crate::archive::{ArchivePath, CaptureSink};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::{Context, Problem};
use crate::settings::{Field, SecretSource, Settings, Shape};

/// Longest version text that is recorded.
const VERSION_LEN_MAX: usize = 1024;
/// The stream's path in the component if the plan names none.
const FILENAME: &str = "stream";

/// Keys of the kind.
pub const FIELDS: &[Field] = &[
    Field::required("dump", Shape::Argv, "Program whose standard output is stored"),
    Field::optional("pipe", Shape::ArgvList, "Programs that the output passes through first, in order"),
    Field::optional("filename", Shape::Text, "Path of the stream in the component, `stream` if not set"),
    Field::optional("version", Shape::Argv, "Program that prints the version of what is dumped; recorded"),
    Field::optional("check", Shape::Table(CHECK_FIELDS), "What proves that the stream is whole"),
    Field::optional("normalise", Shape::TextList, "What to take out of a dump that differs each night for no reason"),
    Field::optional("restore", Shape::Argv, "Program that takes the stream back on its standard input"),
    Field::optional("restore_pipe", Shape::ArgvList, "Programs that the output of `restore` passes through, in order"),
    Field::optional("verify", Shape::Argv, "Program that exits 0 when what was restored is right"),
    Field::optional("env", Shape::Any, "Variables for all these programs: texts, or references to secrets"),
    Field::optional("directory", Shape::Text, "Directory in which all these programs run; the plan's if not set"),
    Field::optional("timeout", Shape::Duration, "Longest time that a program may take"),
    Field::optional("stall_timeout", Shape::Duration, "Longest time that a dump may go without a byte"),
    Field::optional(
        "stderr",
        Shape::OneOf(&["ignore", "warn", "fail"]),
        "What it means when the dump writes to standard error but exits 0; `warn` if not set",
    ),
];

/// What output on standard error means for a capture that is whole otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StderrPolicy {
    /// It is recorded.
    Ignore,
    /// It is a problem.
    #[default]
    Warn,
    /// The capture doesn't count.
    Fail,
}

impl StderrPolicy {
    /// The policy at `key`.
    #[must_use]
    pub fn from_settings(settings: &Settings, key: &str) -> Option<Self> {
        Some(match settings.text(key)?.as_str() {
            "ignore" => Self::Ignore,
            "fail" => Self::Fail,
            _ => Self::Warn,
        })
    }

    /// Applies the policy to what `commands` wrote.
    ///
    /// # Errors
    /// `Component` if the policy is to fail and something was written.
    pub fn apply(self, context: Context<'_>, name: &str, commands: &[CommandRecord]) -> Result<()> {
        for command in commands.iter().filter(|command| !command.stderr.trim().is_empty()) {
            let program = command.argv.first().map_or("", String::as_str);
            let last = command.stderr.trim_end().lines().last().unwrap_or_default();
            match self {
                Self::Ignore => context.observer.detail(&format!("{name}: {program} said: {last}")),
                Self::Warn => context.observer.problem(Problem::new(name, format!("{program} said: {last}"))),
                Self::Fail => {
                    let message = format!("{program} exited 0 but complained, which the plan takes for a failure");
                    let hint = "See what it says; set `stderr` to \"warn\" or \"ignore\" if that is harmless";
                    return Err(Error::new(ErrorKind::Component, message).hint(hint).cause(last.to_owned()));
                }
            }
        }
        Ok(())
    }
}

/// The value of an environment variable for the programs.
#[derive(Debug, Clone)]
enum Variable {
    Text(String),
    Secret(SecretSource),
}

/// A component of kind `command`.
#[derive(Debug)]
pub struct Command {
    dump: Vec<Vec<String>>,
    path: ArchivePath,
    version: Option<Vec<String>>,
    check: Check,
    normalisers: Vec<Normaliser>,
    restore: Vec<Vec<String>>,
    verify: Option<Vec<String>>,
    variables: Vec<(String, Variable)>,
    directory: Option<std::path::PathBuf>,
    limits: Limits,
    stderr: StderrPolicy,
}

/// Builds the component from settings that were checked against [`FIELDS`].
///
/// # Errors
/// `InvalidPlan` with the line of what is wrong.
pub fn build(settings: &Settings) -> Result<Box<dyn Component>> {
    Ok(Box::new(Command::from_settings(settings)?))
}

impl Command {
    /// As [`build`].
    ///
    /// # Errors
    /// As [`build`].
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let filename = settings.text("filename").unwrap_or_else(|| FILENAME.to_owned());
        let path = ArchivePath::parse(&filename).ok().filter(|path| !path.is_root());
        let restore: Vec<_> = settings.argv("restore").into_iter().chain(settings.argv_list("restore_pipe")).collect();
        if settings.has("restore_pipe") && !settings.has("restore") {
            return Err(settings.error("restore_pipe", "needs `restore` before it"));
        }
        Ok(Self {
            dump: settings.argv("dump").into_iter().chain(settings.argv_list("pipe")).collect(),
            path: path.ok_or_else(|| settings.error("filename", "is not a path inside the component"))?,
            version: settings.argv("version"),
            check: settings.table("check").map(|table| Check::from_settings(&table)).transpose()?.unwrap_or_default(),
            normalisers: Normaliser::from_settings(settings, "normalise")?,
            restore,
            verify: settings.argv("verify"),
            variables: variables(settings)?,
            directory: settings.path("directory").or_else(|| settings.working_directory()),
            limits: Limits { timeout: settings.duration("timeout"), stall_timeout: settings.duration("stall_timeout") },
            stderr: StderrPolicy::from_settings(settings, "stderr").unwrap_or_default(),
        })
    }

    fn program(&self, argv: &[String], variable: &dyn Fn(&str) -> Option<String>) -> Result<Program> {
        let mut program = Program::from_argv(argv);
        for (name, value) in &self.variables {
            program = match value {
                Variable::Text(text) => program.variable(name, text),
                Variable::Secret(source) => program.secret_variable(name, &source.resolve(variable)?),
            };
        }
        Ok(match &self.directory {
            Some(directory) => program.directory(directory),
            None => program,
        })
    }

    fn chain(&self, argvs: &[Vec<String>], limits: Limits, variable: &dyn Fn(&str) -> Option<String>) -> Result<Chain> {
        let programs = argvs.iter().map(|argv| self.program(argv, variable)).collect::<Result<_>>()?;
        Ok(Chain::new(programs, limits))
    }

    fn restore_path(env: &RestoreEnvironment<'_>) -> Result<ArchivePath> {
        let recorded = env.record.facts.get("path").and_then(Value::as_str).unwrap_or(FILENAME);
        ArchivePath::parse(recorded)
            .map_err(|cause| Error::damaged("The record names no path for its stream").cause(cause))
    }
}

impl Component for Command {
    fn discover(&self, env: &CaptureEnvironment<'_>) -> Result<BTreeMap<String, String>> {
        let Some(argv) = &self.version else { return Ok(BTreeMap::new()) };
        let chain = Chain::single(self.program(argv, env.variable)?, self.limits);
        let text = chain.output(env.context, b"").map_err(|error| error.context("Can't find out the version"))?.text();
        let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= VERSION_LEN_MAX).unwrap_or(text.len());
        Ok(BTreeMap::from([("version".to_owned(), text[..end].to_owned())]))
    }

    fn capture(&self, env: &CaptureEnvironment<'_>, sink: &mut dyn CaptureSink) -> Result<Captured> {
        let versions = self.discover(env)?;
        let mut inspector = Inspector::new(&self.check);
        let chain = self.chain(&self.dump, self.limits, env.variable)?;
        let mut normalising = Normalising::new(&self.normalisers, env.secret);
        let rewrite: Option<&mut dyn Rewrite> = if self.normalisers.is_empty() { None } else { Some(&mut normalising) };
        let mut look = |bytes: &[u8]| inspector.push(bytes);
        let (_, commands) = chain.store_rewritten(env.context, sink, &self.path, &mut look, rewrite)?;
        let completeness = inspector.verdict(&commands)?;
        self.stderr.apply(env.context, env.name, &commands)?;
        let mut facts = Map::new();
        facts.insert("path".to_owned(), String::from_utf8_lossy(&self.path.to_bytes()).into());
        let applied = normalising.applied();
        if !applied.is_empty() {
            facts.insert("normalised".to_owned(), json!(applied));
        }
        Ok(Captured { versions, completeness, facts, commands })
    }

    fn plan_restore(&self, env: &RestoreEnvironment<'_>) -> Result<Vec<RestoreStep>> {
        let path = Self::restore_path(env)?;
        if let Some(root) = &env.root {
            return super::extract::plan_files_below(env, root);
        }
        let Some(program) = self.restore.first().and_then(|argv| argv.first()) else {
            let hint = format!(
                "Set `restore` in the plan, or take the stream with `compline cat SNAPSHOT:/{}/{path}`",
                env.name
            );
            let message = format!("Component {} has no command that restores it", env.name);
            return Err(Error::new(ErrorKind::InvalidPlan, message).hint(hint));
        };
        if env.existing == Existing::Skip {
            let what = format!("Leave {} alone: nobody but {program} knows whether it exists", env.name);
            return Ok(vec![RestoreStep { what, destructive: false }]);
        }
        let step = |what, destructive| RestoreStep { what, destructive };
        let mut steps = vec![step(format!("Give {path} to {program}, which may replace what is there"), true)];
        steps.extend(
            self.verify.iter().filter_map(|argv| argv.first()).map(|argv0| step(format!("Verify with {argv0}"), false)),
        );
        Ok(steps)
    }

    fn restore(&self, env: &RestoreEnvironment<'_>) -> Result<Restored> {
        self.plan_restore(env)?;
        if let Some(root) = &env.root {
            return super::extract::restore_files_below(env, root);
        }
        if env.existing == Existing::Skip {
            return Ok(Restored::default());
        }
        // A restore that is ended for being slow helps nobody.
        let limits = Limits::default();
        let running = self.chain(&self.restore, limits, env.variable)?.start(env.context, Input::Pipe)?;
        running.feed(&mut env.source.open(&Self::restore_path(env)?)?)?;
        let mut proofs = vec!["the restore command took the whole stream and exited 0".to_owned()];
        if let Some(argv) = &self.verify {
            let chain = Chain::single(self.program(argv, env.variable)?, limits);
            chain.output(env.context, b"").map_err(|error| error.context("What was restored does not verify"))?;
            proofs.push(format!("{} exited 0", argv.first().map_or("", String::as_str)));
        }
        Ok(Restored { proofs })
    }
}

fn variables(settings: &Settings) -> Result<Vec<(String, Variable)>> {
    if !settings.has("env") {
        return Ok(Vec::new());
    }
    let Some(table) = settings.table("env") else {
        return Err(settings.error("env", "must be a table of variables"));
    };
    let value = |name: &str| match (table.text(name), table.secret(name)) {
        (Some(text), _) => Ok((name.to_owned(), Variable::Text(text))),
        (None, Some(source)) => Ok((name.to_owned(), Variable::Secret(source))),
        (None, None) => Err(table.error(name, "must be a text or say where a secret comes from")),
    };
    table.keys().into_iter().map(value).collect()
}
