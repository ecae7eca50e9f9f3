//! The plan: the operator's file. It says what the platform consists of, where its snapshots go, and in which order
//! things are captured and restored.
//!
//! A [`Plan`] exists only if all of it is valid: keys, values, kinds, names, references, order. The same tables of
//! [`Field`](crate::settings::Field)s check it, document it and make the JSON Schema.
//! Relative paths in a plan start from the directory the plan lies in, so that a run from cron means the same as one by hand.

mod component;
mod fields;
pub mod order;
mod retention;
mod schema;
mod show;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use component::{Enabled, Importance, PlannedComponent, Presence, Role, WhenMissing};
pub use order::{Fault, Link};
pub use retention::Retention;
pub use schema::json_schema;

use crate::error::{Error, ErrorKind, Result};
use crate::observer::Problem;
use crate::settings::{SecretSource, Settings, did_you_mean, listing};
use crate::storage::{Limits, Location};
use crate::units::parse_speed;

/// `format` of the plans that this program reads.
pub const PLAN_FORMAT: i64 = 1;

/// What the plan is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Recorded in every snapshot.
    pub name: String,
    /// For people.
    pub description: String,
    /// IANA name of the time zone in which days, weeks and months begin for retention.
    pub timezone: String,
}

/// Where snapshots go and what opens the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositorySettings {
    /// As on the command line; a relative directory has been resolved against the plan's.
    pub location: Location,
    /// Where the passphrase comes from.
    pub password: Option<SecretSource>,
    /// Where the key file lies.
    pub key_file: Option<PathBuf>,
    /// How much of the line and the server may be used: of this repository's alone.
    pub limits: Limits,
}

/// Another repository, which gets copies of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedCopy {
    /// Where, and what opens it; without a key what opens the plan's own repository.
    pub repository: RepositorySettings,
    /// Only snapshots with all of these tags.
    pub tags: Vec<String>,
}

/// What a failed component means for those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The others are captured all the same.
    #[default]
    Continue,
    /// Those after it are skipped.
    Stop,
}

/// A valid plan.
pub struct Plan {
    path: PathBuf,
    text: String,
    settings: Settings,
    platform: Platform,
    repository: Option<RepositorySettings>,
    on_error: OnError,
    components: Vec<PlannedComponent>,
    capture_order: Vec<usize>,
    restore_order: Vec<Vec<usize>>,
    retention: Option<Retention>,
    copies: Vec<PlannedCopy>,
}

impl Plan {
    /// Reads a plan. `path` is where it lies: for messages, and for the relative paths in it.
    ///
    /// # Errors
    /// `InvalidPlan` with file and line of the first thing that is wrong.
    pub fn load(path: &Path, text: &str) -> Result<Self> {
        let settings = Settings::parse(path, text)?;
        check_format(&settings)?;
        settings.check(fields::PLAN)?;
        let platform = platform(&settings);
        let repository = settings.table("repository").map(|table| repository(&table)).transpose()?;
        let defaults = settings.table("defaults");
        let components = component::read_all(&settings, defaults.as_ref())?;
        let links: Vec<Link<'_>> = components.iter().map(PlannedComponent::link).collect();
        let (capture_order, restore_order) =
            order::both(&links).map_err(|fault| component::refuse(&components, &fault))?;
        let retention = settings.table("retention").map(|table| Retention::read(&table)).transpose()?;
        let copies = settings.tables("copy").iter().map(copy).collect::<Result<_>>()?;
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            on_error: on_error(defaults.as_ref()),
            platform,
            repository,
            components,
            capture_order,
            restore_order,
            retention,
            copies,
            settings,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text, which snapshots keep.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is about.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Where its snapshots go, unless it leaves that to the command line.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositorySettings> {
        self.repository.as_ref()
    }

    /// What a failed component means for those after it.
    #[must_use]
    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// Which snapshots are to be kept, if the plan says.
    #[must_use]
    pub fn retention(&self) -> Option<&Retention> {
        self.retention.as_ref()
    }

    /// The repositories that `compline copy` fills.
    #[must_use]
    pub fn copies(&self) -> &[PlannedCopy] {
        &self.copies
    }

    /// The components as the plan lists them.
    #[must_use]
    pub fn components(&self) -> &[PlannedComponent] {
        &self.components
    }

    /// The component called `name`.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&PlannedComponent> {
        self.components.iter().find(|component| component.name() == name)
    }

    /// The components in the order of capture: each before those it references.
    pub fn in_capture_order(&self) -> impl Iterator<Item = &PlannedComponent> {
        self.capture_order.iter().filter_map(|place| self.components.get(*place))
    }

    /// Groups of components in the order of restore: each group needs only those before it.
    pub fn restore_groups(&self) -> impl Iterator<Item = Vec<&PlannedComponent>> {
        self.restore_order.iter().map(|group| group.iter().filter_map(|place| self.components.get(*place)).collect())
    }

    /// The names of [`Plan::restore_groups`], as snapshots record them.
    #[must_use]
    pub fn restore_order(&self) -> Vec<Vec<String>> {
        self.restore_groups().map(|group| group.iter().map(|component| component.name().to_owned()).collect()).collect()
    }

    /// What the plan's words allow, but its author should know.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.secret_problems();
        problems.extend(timezone_problem(&self.platform.timezone));
        problems
    }

    fn secret_problems(&self) -> Vec<Problem> {
        let repositories = self.repository.iter().chain(self.copies.iter().map(|copy| &copy.repository));
        let secrets = repositories.flat_map(|repository| {
            let key_file = repository.key_file.clone().map(SecretSource::File);
            repository.password.clone().into_iter().chain(key_file)
        });
        secrets.filter_map(|secret| secret.exposure()).collect()
    }
}

/// Not an error: a plan must be readable on a machine without a time zone database, on the worst day of all.
fn timezone_problem(name: &str) -> Option<Problem> {
    let known = name == "UTC" || jiff::tz::TimeZone::get(name).is_ok();
    (!known).then(|| Problem::new(name, "is not a time zone that this machine knows"))
}

fn check_format(settings: &Settings) -> Result<()> {
    match settings.integer("format") {
        Some(PLAN_FORMAT) | None => Ok(()),
        Some(other) => {
            let error =
                settings.error("format", format!("is {other}, and this program reads plans of format {PLAN_FORMAT}"));
            Err(error.hint("Use a newer compline for a newer plan"))
        }
    }
}

fn platform(settings: &Settings) -> Platform {
    let text = |key: &str| settings.table("platform").and_then(|platform| platform.text(key));
    Platform {
        name: text("name").unwrap_or_default(),
        description: text("description").unwrap_or_default(),
        timezone: text("timezone").unwrap_or_else(|| "UTC".to_owned()),
    }
}

fn repository(settings: &Settings) -> Result<RepositorySettings> {
    let (password, key_file) = (settings.secret("password"), settings.path("key_file"));
    if password.is_some() && key_file.is_some() {
        let error = settings.error("key_file", "can't stand beside \"password\": a repository is opened in one way");
        return Err(error.hint("Keep the one that this machine shall use"));
    }
    Ok(RepositorySettings { location: location(settings)?, password, key_file, limits: limits(settings)? })
}

fn limits(settings: &Settings) -> Result<Limits> {
    let rate = |key: &str| match settings.text(key).map(|text| parse_speed(&text)) {
        None => Ok(None),
        Some(Some(rate)) => Ok(Some(rate)),
        Some(None) => {
            Err(settings.error(key, "is no rate").hint("Write bytes a second with their unit: 500KiB, 20MB or 20MB/s"))
        }
    };
    let count = |key: &str| match settings.integer(key).map(u64::try_from) {
        None => Ok(None),
        Some(Ok(count)) if count > 0 => Ok(Some(count)),
        Some(_) => Err(settings.error(key, "has to be 1 or more")),
    };
    Ok(Limits {
        upload: rate("limit_upload")?,
        download: rate("limit_download")?,
        requests: count("limit_requests")?,
        concurrency: count("concurrency")?,
    })
}

fn copy(settings: &Settings) -> Result<PlannedCopy> {
    Ok(PlannedCopy { repository: repository(settings)?, tags: settings.text_list("tags") })
}

fn location(settings: &Settings) -> Result<Location> {
    let text = settings.text("location").unwrap_or_default();
    match Location::parse(OsStr::new(&text)) {
        Ok(Location::Local(path)) => Ok(Location::Local(settings.resolve(path))),
        Ok(Location::S3(mut address)) => {
            address.ca = address.ca.map(|path| settings.resolve(path));
            Ok(Location::S3(address))
        }
        Ok(Location::Azure(mut address)) => {
            address.ca = address.ca.map(|path| settings.resolve(path));
            Ok(Location::Azure(address))
        }
        Ok(elsewhere) => Ok(elsewhere),
        Err(problem) => Err(settings.error("location", format!("can't be used: {problem}")).hint(problem.hint())),
    }
}

fn on_error(defaults: Option<&Settings>) -> OnError {
    match defaults.and_then(|defaults| defaults.text("on_error")).as_deref() {
        Some("stop") => OnError::Stop,
        _ => OnError::Continue,
    }
}

/// The plan is asked for a component it doesn't have.
#[must_use]
pub fn no_such_component(plan: &Plan, name: &str) -> Error {
    let names: Vec<&str> = plan.components.iter().map(PlannedComponent::name).collect();
    let suggestion = did_you_mean(name, &names);
    let message = format!("Plan {} has no component \"{name}\"{suggestion}", plan.path.display());
    Error::new(ErrorKind::NotFound, message).hint(format!("It has {}", listing(&names)))
}

#[cfg(test)]
mod tests;
