//! Which `psql`, `pg_dump` and `pg_dumpall` to run.
//!
//! A dump takes a `pg_dump` that is not older than its server. Of those, the one of the server's own major version is
//! best and the next newer one second: newer ones write settings that an older server doesn't know at the restore.

use std::fs;
use std::path::{Path, PathBuf};

use crate::components::process::{Chain, Limits, Program};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Context;

/// Where packages put the programs of each major version: a directory, and what follows the version.
const PLACES: [(&str, &str, &str); 2] = [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];

/// Programs of one version in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// None: on `PATH`.
    directory: Option<PathBuf>,
    /// As `pg_dump --version` says.
    pub version: String,
    /// First part of the version.
    pub major: u32,
    /// Whether the programs know `\restrict`.
    pub restrict: bool,
}

/// A directory of programs for a major version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installed {
    major: u32,
    directory: PathBuf,
}

/// Every version that packages installed, oldest first.
pub fn installed() -> Vec<Installed> {
    let mut found = Vec::new();
    for (place, prefix, bin) in PLACES {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let major = name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|major| major.parse().ok());
            let directory = entry.path().join(bin);
            if let Some(major) = major
                && directory.join("psql").is_file()
            {
                found.push(Installed { major, directory });
            }
        }
    }
    found.sort();
    found
}

/// The best of `installed` for a server of major version `server`.
fn best(installed: &[Installed], server: u32) -> Option<&Installed> {
    installed.iter().filter(|one| one.major >= server && one.directory.join("pg_dump").is_file()).min()
}

/// The program `tool` of the place `directory`, or on `PATH`.
pub fn program(directory: Option<&Path>, tool: &str) -> Program {
    let hint = "Install the Debian package postgresql-client, or set `bin` to the directory of the programs";
    let path = directory.map_or_else(|| PathBuf::from(tool), |directory| directory.join(tool));
    Program::new(path).missing_hint(hint)
}

/// Where a `psql` is that can ask a server of any version.
pub fn any_psql(bin: Option<&Path>) -> Option<PathBuf> {
    bin.map(Path::to_path_buf).or_else(|| installed().pop().map(|newest| newest.directory))
}

impl Client {
    /// The client for a server of major version `server`.
    ///
    /// # Errors
    /// `Environment` when there is none, or only older ones.
    pub fn find(context: Context<'_>, bin: Option<&Path>, server: u32) -> Result<Self> {
        let installed = installed();
        let directory = bin.or_else(|| best(&installed, server).map(|one| one.directory.as_path()));
        let version = say(context, directory, "pg_dump", "--version")?;
        let major = major_of(&version).ok_or_else(|| {
            let message = format!("pg_dump calls its version \"{version}\", which says nothing");
            Error::new(ErrorKind::Environment, message).hint("Set `bin` to the directory of PostgreSQL's own programs")
        })?;
        if major < server {
            let message = format!("pg_dump is of version {major} and can't dump a server of version {server}");
            let hint = format!("Install the Debian package postgresql-client-{server}, or set `bin`");
            return Err(Error::new(ErrorKind::Environment, message).hint(hint));
        }
        let restrict = say(context, directory, "pg_dump", "--help")?.contains("--restrict-key");
        let version = version.split_once("PostgreSQL) ").map_or(version.clone(), |(_, number)| number.to_owned());
        Ok(Self { directory: directory.map(Path::to_path_buf), version, major, restrict })
    }

    /// The program `tool` of this client.
    pub fn program(&self, tool: &str) -> Program {
        program(self.directory.as_deref(), tool)
    }
}

fn say(context: Context<'_>, directory: Option<&Path>, tool: &str, what: &str) -> Result<String> {
    let program = program(directory, tool).arg(what).variable("LC_ALL", "C");
    Ok(Chain::single(program, Limits::default()).output(context, b"")?.text())
}

/// The first whole number of `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_version_is_read_from_what_it_says() {
        assert_eq!(major_of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("pg_dump"), None);
    }

    #[test]
    fn the_servers_own_version_is_preferred_and_older_ones_are_never_taken() {
        let home = tempfile::tempdir().expect("a directory");
        let installed: Vec<Installed> = [13, 15, 17]
            .map(|major| {
                let directory = home.path().join(major.to_string());
                fs::create_dir(&directory).expect("writable");
                fs::write(directory.join("pg_dump"), "").expect("writable");
                Installed { major, directory }
            })
            .to_vec();
        let major = |server| best(&installed, server).map(|one| one.major);
        assert_eq!((major(15), major(14), major(16), major(18)), (Some(15), Some(15), Some(17), None));
    }
}
