//! Where the repository is and what opens it: command line first, then environment, then the plan, then the terminal.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::arguments::{FromKey, Global, NewKey};
use super::environment::{self, unless_said};
use crate::commands::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Plan, RepositorySettings};
use crate::settings::SecretSource;
use crate::storage::{Limits, Location};
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
        return Ok(Location::parse(text)?.equipped(variable));
    }
    let planned = plan.and_then(Plan::repository).map(|repository| repository.location.clone().equipped(variable));
    planned.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "No repository is named")
            .hint("Name it with -r LOCATION or COMPLINE_REPO, or in a plan (-p FILE)")
    })
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
    Ok(Target { location, unlock, cache: cache(global, variable)?, limits: limits(global, plan)? })
}

/// How much of the line may be used: what the command line says, else what the plan says.
fn limits(global: &Global, plan: Option<&Plan>) -> Result<Limits> {
    let rate = |text: &Option<String>, flag: &str| match text.as_deref().map(|text| (text, units::parse_speed(text))) {
        None => Ok(None),
        Some((_, Some(rate))) => Ok(Some(rate)),
        Some((text, None)) => Err(Error::new(ErrorKind::Usage, format!("`{text}` is no rate for {flag}"))
            .hint("Write bytes a second with their unit: 500KiB, 20MB or 20MB/s")),
    };
    let said = Limits {
        upload: rate(&global.limit_upload, "--limit-upload")?,
        download: rate(&global.limit_download, "--limit-download")?,
        requests: global.limit_requests,
        concurrency: global.concurrency,
    };
    Ok(said.or(plan.and_then(Plan::repository).map(|repository| repository.limits).unwrap_or_default()))
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
fn named(global: &Global, plan: Option<&Plan>) -> Result<Option<Named>> {
    let Global { key_file, password_file, password_command, .. } = global;
    let said = Named::of(key_file.clone(), password_file.clone(), password_command.as_deref());
    let planned = plan.and_then(Plan::repository).and_then(Named::of_settings);
    Ok(Named::or_in_environment(said, "COMPLINE_")?.or(planned))
}

/// What somebody named as the key.
enum Named {
    /// A key file or an identity file.
    KeyFile(PathBuf),
    /// Where the passphrase comes from.
    Secret(SecretSource),
    /// The passphrase itself.
    Passphrase(Zeroizing<String>),
}

impl Named {
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

/// The repository at `location`, which is copied from. What opens it has names of its own; without them it is what opens the
/// other one.
pub(super) fn from(
    location: &OsStr,
    key: &FromKey,
    (cache, limits): (Option<PathBuf>, Limits),
    variable: Variable<'_>,
    other: impl FnOnce() -> Result<Unlock>,
) -> Result<Target> {
    let FromKey { password_file, password_command, key_file } = key;
    let said = Named::of(key_file.clone(), password_file.clone(), password_command.as_deref());
    let unlock = match Named::or_in_environment(said, "COMPLINE_FROM_")? {
        Some(named) => named.unlock(variable)?,
        None => other()?,
    };
    Ok(Target { location: Location::parse(location)?.equipped(variable), unlock, cache, limits })
}

/// A repository that the plan copies to. What opens it is what opens the plan's own, if nothing else is said.
pub(super) fn copy_target(settings: &RepositorySettings, source: &Target, variable: Variable<'_>) -> Result<Target> {
    let unlock = match Named::of_settings(settings) {
        Some(named) => named.unlock(variable)?,
        None => source.unlock.clone(),
    };
    Ok(Target {
        location: settings.location.clone().equipped(variable),
        unlock,
        cache: source.cache.clone(),
        limits: settings.limits.or(source.limits),
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
        Some(Named::KeyFile(path)) if !path.exists() => Ok((make_key_file(&path)?, Some(path))),
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
