//! Secrets by reference. Nothing here prints or keeps one; the text is wiped when it is dropped.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::observer::Problem;

/// Longest secret in bytes.
const SECRET_LEN_MAX: u64 = 1 << 20;

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The content of a file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// What a command prints.
    Command(Vec<String>),
    /// A credential that systemd passes in `$CREDENTIALS_DIRECTORY`.
    Systemd(String),
}

impl SecretSource {
    /// Fetches the secret; one trailing line end is cut off.
    ///
    /// # Errors
    /// `Environment` when it can't be had, is empty, or is not UTF-8.
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Zeroizing<String>> {
        let bytes = match self {
            Self::File(path) => read_file(path)?,
            Self::Env(name) => Zeroizing::new(env(name).ok_or_else(|| unset(name))?.into_bytes()),
            Self::Command(argv) => run(argv)?,
            Self::Systemd(name) => read_file(&credential_path(name, env)?)?,
        };
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Error::new(ErrorKind::Environment, format!("The secret from {self} is not UTF-8 text")))?;
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() {
            return Err(Error::new(ErrorKind::Environment, format!("The secret from {self} is empty"))
                .hint("A passphrase is one line of text"));
        }
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// What is wrong with how the secret is kept, if anything: a file that every user of the machine may read.
    #[must_use]
    pub fn exposure(&self) -> Option<Problem> {
        let Self::File(path) = self else { return None };
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        let message = format!("holds a secret and every user may read it; run `chmod 600 {}`", path.display());
        (mode & 0o004 != 0).then(|| Problem::new(path.display().to_string(), message))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            // Arguments may tell more than they should; the program is enough to find it.
            Self::Command(argv) => write!(f, "command {}", argv.first().map_or("", String::as_str)),
            Self::Systemd(name) => write!(f, "systemd credential {name}"),
        }
    }
}

fn unset(name: &str) -> Error {
    Error::new(ErrorKind::Environment, format!("Environment variable {name} is not set"))
        .hint("The plan takes a secret from it; set it for this command")
}

fn credential_path(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let directory = env("CREDENTIALS_DIRECTORY").ok_or_else(|| unset("CREDENTIALS_DIRECTORY"))?;
    if name.contains('/') || name == "." || name == ".." {
        return Err(Error::new(ErrorKind::InvalidPlan, format!("\"{name}\" is not the name of a systemd credential")));
    }
    Ok(Path::new(&directory).join(name))
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let fail = |cause| Error::io(format!("Can't read the secret in {}", path.display()), cause);
    read_all(File::open(path).map_err(fail)?).map_err(fail)
}

fn run(argv: &[String]) -> Result<Zeroizing<Vec<u8>>> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Error::new(ErrorKind::InvalidPlan, "A command for a secret names no program"))?;
    let fail = |cause| Error::io(format!("Can't run {program} to get a secret"), cause);
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(fail)?;
    let output = child.stdout.take().map_or_else(|| Ok(Zeroizing::default()), read_all);
    let status = child.wait().map_err(fail)?;
    if !status.success() {
        return Err(Error::new(
            ErrorKind::Environment,
            format!("{program} was run to get a secret and failed: {status}"),
        )
        .hint("Run it by hand, as the same user, to see why"));
    }
    output.map_err(fail)
}

fn read_all(source: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    source.take(SECRET_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SECRET_LEN_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "longer than 1 MiB"));
    }
    Ok(bytes)
}
