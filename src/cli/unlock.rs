//! Where the repository is and what opens it: command line first, then environment, then the plan, then the terminal.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::arguments::{FromKey, Global, NewKey};
use super::environment::{self, unless_said};
use crate::commands::{Named, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Plan, RepositorySettings};
use crate::settings::SecretSource;
use crate::storage::{Limits, Location, ParseLocationError};
use crate::store::{Recipient, Unlock};
use crate::units;

/// Reads an environment variable.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the plan, if one is named.
pub(super) fn plan(global: &Global) -> Result<Option<Plan>> {
    let Some(path) = &unless_said(global.plan.as_ref(), "COMPLINE_PLAN")? else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|cause| {
        Error::new(ErrorKind::InvalidPlan, format!("Plan {} can't be read", path.display()))
            .hint("Name the plan with -p or COMPLINE_PLAN; it is a text file in TOML")
            .cause(cause)
    })?;
    Plan::load(path, &text).map(Some)
}

/// Where the repository lies.
pub(super) fn location(global: &Global, plan: Option<&Plan>, variable: Variable<'_>) -> Result<Location> {
    if let Some(text) = &unless_said(global.repo.as_ref(), "COMPLINE_REPO")? {
        return parsed(text, Named::Repo, variable);
    }
    let planned = plan.and_then(Plan::repository).map(|repository| repository.location.clone().equipped(variable));
    planned.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "No repository is named")
            .hint("Name it with -r LOCATION or COMPLINE_REPO, or in a plan (-p FILE)")
    })
}

/// A location that was written where `named` says.
fn parsed(text: &OsStr, named: Named, variable: Variable<'_>) -> Result<Location> {
    let location = Location::parse(text).map_err(|problem| match problem {
        ParseLocationError::Empty => {
            Error::from(problem).hint(format!("Give a directory or an address ({})", named.words()))
        }
        _ => problem.into(),
    })?;
    Ok(location.equipped(variable))
}

/// The directory of caches. None if there is no home to put it in.
pub(super) fn cache(global: &Global, variable: Variable<'_>) -> Result<Option<PathBuf>> {
    let given = unless_said(global.cache_dir.as_ref(), "COMPLINE_CACHE_DIR")?;
    if given.is_some() {
        return Ok(given);
    }
    let xdg = || variable("XDG_CACHE_HOME").map(|path| PathBuf::from(path).join("compline"));
    let home = || variable("HOME").map(|path| PathBuf::from(path).join(".cache/compline"));
    Ok(xdg().or_else(home).filter(|path| path.is_absolute()))
}

/// Everything that opens the repository.
pub(super) fn target(global: &Global, plan: Option<&Plan>, variable: Variable<'_>) -> Result<Target> {
    let location = location(global, plan, variable)?;
    let unlock = existing(global, plan, variable, location.to_string().as_ref())?;
    let limits = limits_of(global, plan)?;
    Ok(Target { location, unlock, cache: cache(global, variable)?, limits, named: Named::Repo })
}

/// What the command line says, else what the plan says of its repository.
fn limits_of(global: &Global, plan: Option<&Plan>) -> Result<Limits> {
    let planned = plan.and_then(Plan::repository).map(|repository| repository.limits);
    Ok(limits(global)?.or(planned.unwrap_or_default()))
}

/// How much of any line may be used, as the command line says. What the plan says holds for one repository each.
fn limits(global: &Global) -> Result<Limits> {
    let rate = |text: &Option<String>, flag: &str| match text.as_deref().map(|text| (text, units::parse_speed(text))) {
        None => Ok(None),
        Some((_, Some(rate))) => Ok(Some(rate)),
        Some((text, None)) => Err(Error::new(ErrorKind::Usage, format!("`{text}` is no rate for {flag}"))
            .hint("Write bytes a second with their unit: 500KiB, 20MB or 20MB/s")),
    };
    Ok(Limits {
        upload: rate(&global.limit_upload, "--limit-upload")?,
        download: rate(&global.limit_download, "--limit-download")?,
        requests: global.limit_requests,
        concurrency: global.concurrency,
    })
}

/// What opens a repository that exists.
pub(super) fn existing(
    global: &Global,
    plan: Option<&Plan>,
    variable: Variable<'_>,
    location: &OsStr,
) -> Result<Unlock> {
    match named(global, plan)? {
        Some(named) => named.unlock(variable),
        None => ask(&format!("Passphrase of {}: ", location.to_string_lossy()), TO_OPEN).map(Unlock::Passphrase),
    }
}

/// What names the key of the repository: the command line, else the environment, else the plan. Whichever says anything counts as
/// a whole: no kind of key wins over a place that is nearer.
fn named(global: &Global, plan: Option<&Plan>) -> Result<Option<NamedKey>> {
    let Global { key_file, password_file, password_command, .. } = global;
    let said = NamedKey::of(key_file.clone(), password_file.clone(), password_command.as_deref());
    let planned = plan.and_then(Plan::repository).and_then(NamedKey::of_settings);
    Ok(NamedKey::or_in_environment(said, "COMPLINE_")?.or(planned))
}

/// What somebody named as the key.
enum NamedKey {
    /// A key file or an identity file.
    KeyFile(PathBuf),
    /// Where the passphrase comes from.
    Secret(SecretSource),
    /// The passphrase itself.
    Passphrase(Zeroizing<String>),
}

impl NamedKey {
    /// In one place; if it names several, the first of these.
    fn of(key_file: Option<PathBuf>, password_file: Option<PathBuf>, command: Option<&str>) -> Option<Self> {
        let words = |command: &str| command.split_whitespace().map(str::to_owned).collect();
        key_file
            .map(Self::KeyFile)
            .or_else(|| password_file.map(|path| Self::Secret(SecretSource::File(path))))
            .or_else(|| command.map(|command| Self::Secret(SecretSource::Command(words(command)))))
    }

    /// In `[repository]` or `[[copy]]` of the plan.
    fn of_settings(settings: &RepositorySettings) -> Option<Self> {
        let key_file = settings.key_file.clone().map(Self::KeyFile);
        key_file.or_else(|| settings.password.clone().map(Self::Secret))
    }

    /// What was said or, if nothing was, what the variables name that begin with `prefix`.
    fn or_in_environment(said: Option<Self>, prefix: &str) -> Result<Option<Self>> {
        if said.is_some() {
            return Ok(said);
        }
        let path = |name: &str| environment::value(&format!("{prefix}{name}")).map(|value| value.map(PathBuf::from));
        let text = |name: &str| environment::text(&format!("{prefix}{name}"));
        let named = Self::of(path("KEY_FILE")?, path("PASSWORD_FILE")?, text("PASSWORD_COMMAND")?.as_deref());
        match named {
            None => Ok(text("PASSWORD")?.map(|text| Self::Passphrase(Zeroizing::new(text)))),
            named => Ok(named),
        }
    }

    fn unlock(self, variable: Variable<'_>) -> Result<Unlock> {
        match self {
            Self::KeyFile(path) => key_file(&path),
            Self::Secret(source) => source.resolve(variable).map(Unlock::Passphrase),
            Self::Passphrase(text) => Ok(Unlock::Passphrase(text)),
        }
    }
}

/// The repository at `location`, which is copied from, as `named` says. What opens it has names of its own; without them it is
/// what opens the other one.
pub(super) fn from(
    global: &Global,
    (location, named): (&OsStr, Named),
    key: &FromKey,
    variable: Variable<'_>,
    other: impl FnOnce() -> Result<Unlock>,
) -> Result<Target> {
    let location = parsed(location, named, variable)?;
    let FromKey { password_file, password_command, key_file } = key;
    let said = NamedKey::of(key_file.clone(), password_file.clone(), password_command.as_deref());
    let unlock = match NamedKey::or_in_environment(said, "COMPLINE_FROM_")? {
        Some(named) => named.unlock(variable)?,
        None => other()?,
    };
    Ok(Target { location, unlock, cache: cache(global, variable)?, limits: limits(global)?, named })
}

/// A repository that the plan copies to. What opens it is what opens the plan's own, if nothing else is said; its limits are its
/// own, for its line is another one.
pub(super) fn copy_target(
    global: &Global,
    settings: &RepositorySettings,
    source: &Target,
    variable: Variable<'_>,
) -> Result<Target> {
    let unlock = match NamedKey::of_settings(settings) {
        Some(named) => named.unlock(variable)?,
        None => source.unlock.clone(),
    };
    Ok(Target {
        location: settings.location.clone().equipped(variable),
        unlock,
        cache: source.cache.clone(),
        limits: limits(global)?.or(settings.limits),
        named: Named::PlannedCopy,
    })
}

fn key_file(path: &Path) -> Result<Unlock> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|cause| {
        Error::io(format!("Key file {} can't be read", path.display()), cause)
            .hint("Correct --key-file, COMPLINE_KEY_FILE or the plan's key_file; only `compline init` makes one")
    })?;
    Unlock::from_key_file(&text)
}

/// Makes a key file that must not exist yet, readable by its owner alone.
fn make_key_file(path: &Path) -> Result<Unlock> {
    let (unlock, text) = Unlock::new_key_file()?;
    make_secret_file(path, &text)?;
    Ok(unlock)
}

/// Makes an identity file that must not exist yet.
pub(super) fn make_identity(path: &Path) -> Result<Recipient> {
    let (text, recipient) = Unlock::new_identity()?;
    make_secret_file(path, &text)?;
    Ok(recipient)
}

fn make_secret_file(path: &Path, text: &str) -> Result<()> {
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())).map_err(|cause| {
        Error::io(format!("Key file {} can't be made", path.display()), cause)
            .hint("Choose a new name in a directory that exists; key files are never overwritten")
    })
}

/// What shall open a repository that is being created, and the key file that was made for it.
pub(super) fn for_new(
    global: &Global,
    plan: Option<&Plan>,
    variable: Variable<'_>,
) -> Result<(Unlock, Option<PathBuf>)> {
    match named(global, plan)? {
        Some(NamedKey::KeyFile(path)) if !path.exists() => Ok((make_key_file(&path)?, Some(path))),
        Some(named) => Ok((named.unlock(variable)?, None)),
        None => ask_twice(TO_OPEN).map(|text| (Unlock::Passphrase(text), None)),
    }
}

/// What a new key is to be made of.
pub(super) fn new_key(options: &NewKey, variable: Variable<'_>) -> Result<Unlock> {
    if let Some(text) = &options.recipient {
        return text.parse().map(Unlock::Recipient);
    }
    if let Some(path) = &options.key_file_to_make {
        return make_key_file(path);
    }
    if let Some(path) = &options.password_file_to_read {
        return SecretSource::File(path.clone()).resolve(variable).map(Unlock::Passphrase);
    }
    ask_twice("Use --new-password-file or --new-key-file").map(Unlock::Passphrase)
}

/// What says how to open a repository.
const TO_OPEN: &str =
    "Use --password-file, --password-command, --key-file, COMPLINE_PASSWORD, or the plan's [repository]";

fn ask(prompt: &str, instead: &'static str) -> Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(
            ErrorKind::WrongKey,
            "No passphrase or key file is named, and there is no terminal to ask on",
        )
        .hint(instead));
    }
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|cause| Error::io("The passphrase can't be read", cause))
}

fn ask_twice(instead: &'static str) -> Result<Zeroizing<String>> {
    let first = ask("New passphrase: ", instead)?;
    if first != ask("The same again: ", instead)? {
        return Err(Error::new(ErrorKind::Usage, "The two passphrases differ").hint("Try again"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::arguments::Cli;

    const PLAN: &str = r#"
        format = 1
        platform = { name = "shop" }
        component = [{ name = "none", kind = "none" }]
        repository = { location = "here", limit_upload = "1MB", concurrency = 4 }
        copy = [{ location = "there" }, { location = "far", limit_upload = "20MB", limit_requests = 9 }]
    "#;

    /// Of the repository, of what is copied to, and of what `--from` names, by these words of the command line.
    fn limits_by(words: &[&str]) -> (Limits, Vec<Limits>, Limits) {
        let words = [&["compline", "--key-file", "key"], words, &["copy"]].concat();
        let global = Cli::try_parse_from(words).expect("a call").global;
        let plan = Plan::load(Path::new("plan.toml"), PLAN).expect("a plan");
        let unlock = || Unlock::new_key_file().map(|(unlock, _)| unlock);
        let repository = plan.repository().expect("it has one");
        let source = Target {
            location: repository.location.clone(),
            unlock: unlock().expect("random bytes"),
            cache: None,
            limits: limits_of(&global, Some(&plan)).expect("limits"),
            named: Named::Repo,
        };
        let copies = plan.copies().iter();
        let copies = copies.map(|copy| copy_target(&global, &copy.repository, &source, &|_| None).expect("it"));
        let key = FromKey { password_file: None, password_command: None, key_file: None };
        let other = from(&global, ("other".as_ref(), Named::From), &key, &|_| None, unlock).expect("another one");
        (source.limits, copies.map(|target| target.limits).collect(), other.limits)
    }

    #[test]
    fn limits_of_the_plan_hold_for_one_repository_and_those_of_the_command_line_for_all() {
        let none = Limits::default();
        let own = Limits { upload: Some(1_000_000), concurrency: Some(4), ..none };
        let far = Limits { upload: Some(20_000_000), requests: Some(9), ..none };
        assert_eq!(limits_by(&[]), (own, vec![none, far], none));
        let said = Limits { upload: Some(5_000), ..none };
        let by_all = limits_by(&["--limit-upload", "5kB"]);
        assert_eq!(by_all, (said.or(own), vec![said, said.or(far)], said));
    }
}
