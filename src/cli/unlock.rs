//! Where the repository is and what opens it: command line first, then environment, then the plan, then the terminal.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::arguments::{FromKey, Global, NewKey};
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
    let Some(path) = &global.plan else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|cause| {
        Error::new(ErrorKind::InvalidPlan, format!("Plan {} can't be read", path.display()))
            .hint("Name the plan with -p or COMPLINE_PLAN; it is a text file in TOML")
            .cause(cause)
    })?;
    Plan::load(path, &text).map(Some)
}

/// Where the repository lies.
pub(super) fn location(global: &Global, plan: Option<&Plan>, variable: Variable<'_>) -> Result<Location> {
    if let Some(text) = &global.repo {
        return Ok(Location::parse(text)?.equipped(variable));
    }
    let planned = plan.and_then(Plan::repository).map(|repository| repository.location.clone().equipped(variable));
    planned.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "No repository is named")
            .hint("Name it with -r LOCATION or COMPLINE_REPO, or in a plan (-p FILE)")
    })
}

/// The directory of caches. None if there is no home to put it in.
pub(super) fn cache(global: &Global, variable: Variable<'_>) -> Option<PathBuf> {
    let given = global.cache_dir.clone();
    let xdg = || variable("XDG_CACHE_HOME").map(|path| PathBuf::from(path).join("compline"));
    let home = || variable("HOME").map(|path| PathBuf::from(path).join(".cache/compline"));
    given.or_else(xdg).or_else(home).filter(|path| path.is_absolute() || global.cache_dir.is_some())
}

/// Everything that opens the repository.
pub(super) fn target(global: &Global, plan: Option<&Plan>, variable: Variable<'_>) -> Result<Target> {
    let location = location(global, plan, variable)?;
    let unlock = existing(global, plan, variable, location.to_string().as_ref())?;
    Ok(Target { location, unlock, cache: cache(global, variable), limits: limits(global, plan)? })
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
    if let Some(unlock) = given(global, variable)? {
        return Ok(unlock);
    }
    if let Some(unlock) = of_plan(plan, variable)? {
        return Ok(unlock);
    }
    ask(&format!("Passphrase of {}: ", location.to_string_lossy()), TO_OPEN).map(Unlock::Passphrase)
}

/// What the command line or the environment name.
fn given(global: &Global, variable: Variable<'_>) -> Result<Option<Unlock>> {
    let Global { key_file, password_file, password_command, .. } = global;
    let words = Words { key_file, password_file, password_command, password: "COMPLINE_PASSWORD" };
    words.unlock(variable)
}

/// How the command line and the environment name a key, in the order in which they count.
struct Words<'w> {
    key_file: &'w Option<PathBuf>,
    password_file: &'w Option<PathBuf>,
    password_command: &'w Option<String>,
    /// The variable that holds the passphrase itself.
    password: &'w str,
}

impl Words<'_> {
    fn unlock(&self, variable: Variable<'_>) -> Result<Option<Unlock>> {
        if let Some(path) = self.key_file {
            return key_file(path).map(Some);
        }
        if let Some(path) = self.password_file {
            return SecretSource::File(path.clone()).resolve(variable).map(Unlock::Passphrase).map(Some);
        }
        if let Some(command) = self.password_command {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            return SecretSource::Command(words).resolve(variable).map(Unlock::Passphrase).map(Some);
        }
        match variable(self.password) {
            Some(text) if text.is_empty() => Err(Error::new(ErrorKind::Usage, format!("{} is empty", self.password))),
            text => Ok(text.map(|text| Unlock::Passphrase(Zeroizing::new(text)))),
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
    let words = Words { key_file, password_file, password_command, password: "COMPLINE_FROM_PASSWORD" };
    let unlock = words.unlock(variable)?.map_or_else(other, Ok)?;
    Ok(Target { location: Location::parse(location)?.equipped(variable), unlock, cache, limits })
}

/// A repository that the plan copies to. What opens it is what opens the plan's own, if nothing else is said.
pub(super) fn copy_target(settings: &RepositorySettings, source: &Target, variable: Variable<'_>) -> Result<Target> {
    let unlock = of_settings(settings, variable)?.unwrap_or_else(|| source.unlock.clone());
    Ok(Target {
        location: settings.location.clone().equipped(variable),
        unlock,
        cache: source.cache.clone(),
        limits: settings.limits.or(source.limits),
    })
}

fn of_plan(plan: Option<&Plan>, variable: Variable<'_>) -> Result<Option<Unlock>> {
    let Some(repository) = plan.and_then(Plan::repository) else { return Ok(None) };
    of_settings(repository, variable)
}

fn of_settings(repository: &RepositorySettings, variable: Variable<'_>) -> Result<Option<Unlock>> {
    if let Some(path) = &repository.key_file {
        return key_file(path).map(Some);
    }
    repository.password.as_ref().map(|source| source.resolve(variable).map(Unlock::Passphrase)).transpose()
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
    let planned = plan.and_then(Plan::repository).and_then(|repository| repository.key_file.as_ref());
    let named = global.password_file.is_some() || global.password_command.is_some();
    let file = global.key_file.as_ref().or(planned.filter(|_| !named));
    if let Some(path) = file.filter(|path| !path.exists()) {
        return Ok((make_key_file(path)?, Some(path.clone())));
    }
    if let Some(unlock) = given(global, variable)? {
        return Ok((unlock, None));
    }
    if let Some(unlock) = of_plan(plan, variable)? {
        return Ok((unlock, None));
    }
    ask_twice(TO_OPEN).map(|text| (Unlock::Passphrase(text), None))
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
