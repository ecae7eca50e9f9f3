//! `ssh://user@host:port/path` and `sftp://…`: which machine, and which directory of it.
//!
//! The path is absolute; `/~/dir` and `/./dir` are below the home of the account. Nothing here is ever given to a shell or to
//! ssh in a place where it could be an option.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ParseLocationError;

/// What starts ssh if nobody says otherwise.
const SSH: &str = "ssh";
/// What is started on the other machine if nobody says otherwise.
const PROGRAM: &str = "compline";

/// A directory of another machine, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    scheme: &'static str,
    /// The account. None: what ssh's configuration says.
    pub user: Option<String>,
    /// The machine, or a name that ssh's configuration knows.
    pub host: String,
    /// None: what ssh's configuration says.
    pub port: Option<u16>,
    /// Absolute, or relative to the home of the account.
    path: Vec<u8>,
    /// The program that makes the connection, and its first words.
    pub ssh: Vec<String>,
    /// compline on the other machine.
    pub program: String,
}

impl SshAddress {
    /// The same, but ssh asks nobody for anything: for lines that are made while nobody looks.
    #[must_use]
    pub fn without_questions(&self) -> Self {
        let mut silent = self.clone();
        silent.ssh.extend(["-o", "BatchMode=yes"].map(str::to_owned));
        silent
    }

    /// Reads what follows `ssh:` or `sftp:`.
    ///
    /// # Errors
    /// A message that repeats nothing of a text that may hold a password.
    pub fn parse(scheme: &'static str, rest: &[u8]) -> Result<Self, ParseLocationError> {
        let wrong = |why| ParseLocationError::Address(scheme, why);
        let rest = rest.strip_prefix(b"//").ok_or(wrong("// is missing behind the colon"))?;
        let slash = rest.iter().position(|byte| *byte == b'/').ok_or(wrong("the path is missing"))?;
        let (authority, path) = rest.split_at(slash);
        let authority = std::str::from_utf8(authority).map_err(|_| wrong("the host is not text"))?;
        let (user, machine) = match authority.rsplit_once('@') {
            Some((user, machine)) => (Some(user.to_owned()), machine),
            None => (None, authority),
        };
        let (host, port) = host_and_port(machine).ok_or(wrong("the port is no number from 1 to 65535"))?;
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(ParseLocationError::Password(scheme));
        }
        if !user.as_ref().is_none_or(|user| is_safe(user)) {
            return Err(wrong("the user is none that can be"));
        }
        if !is_safe(host) {
            return Err(wrong("the host is none that can be"));
        }
        let path = remote_path(path).map_err(wrong)?;
        let (host, ssh, program) = (host.to_owned(), vec![SSH.to_owned()], PROGRAM.to_owned());
        Ok(Self { scheme, user, host, port, path, ssh, program })
    }

    /// The directory there: absolute, or relative to where a login begins.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// With another program that makes connections, whose words are split at blanks, and with another compline there.
    #[must_use]
    pub fn by(mut self, ssh: Option<&str>, program: Option<&str>) -> Self {
        let words: Vec<String> = ssh.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect();
        if !words.is_empty() {
            self.ssh = words;
        }
        if let Some(program) = program.filter(|program| !program.is_empty()) {
            program.clone_into(&mut self.program);
        }
        self
    }
}

/// As it was written.
impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        let home = if self.path.starts_with(b"/") { "" } else { "/~/" };
        write!(f, "{home}{}", self.path().display())
    }
}

/// `host`, `host:port`, `[address]`, `[address]:port`. None if the port is none.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    match port {
        None => Some((host, None)),
        Some(port) => port.parse().ok().filter(|port| *port > 0).map(|port| (host, Some(port))),
    }
}

/// Names that can't be an option of ssh, nor mean anything in the commands that its configuration puts them into.
fn is_safe(name: &str) -> bool {
    let is_fine = |c: char| c.is_alphanumeric() || "._-:%+@\\".contains(c);
    !name.is_empty() && !name.starts_with('-') && name.chars().all(is_fine)
}

fn remote_path(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.contains(&0) {
        return Err("the path has a NUL in it");
    }
    let path = match path.strip_prefix(b"/~") {
        Some([]) => b".".as_slice(),
        Some(rest) if rest.starts_with(b"/") => rest.trim_start_slashes(),
        Some(_) => return Err("the home of another user can't be named: write an absolute path"),
        None => match path.strip_prefix(b"/./") {
            Some(rest) => rest.trim_start_slashes(),
            None => path,
        },
    };
    match path {
        [] => Ok(b".".to_vec()),
        path if path.iter().all(|byte| *byte == b'/') => Err("the path is missing"),
        path => Ok(path.to_vec()),
    }
}

trait TrimSlashes {
    fn trim_start_slashes(&self) -> &[u8];
}

impl TrimSlashes for [u8] {
    fn trim_start_slashes(&self) -> &[u8] {
        let start = self.iter().position(|byte| *byte != b'/').unwrap_or(self.len());
        &self[start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<SshAddress, ParseLocationError> {
        SshAddress::parse("ssh", rest.as_bytes())
    }

    #[test]
    fn addresses_are_taken_apart_and_shown_as_written() {
        for (text, user, host, port, path) in [
            ("//host/srv/b", None, "host", None, "/srv/b"),
            ("//u@host:2222/srv/b", Some("u"), "host", Some(2222), "/srv/b"),
            ("//u@[::1]:22/srv", Some("u"), "::1", Some(22), "/srv"),
            ("//[fe80::1%eth0]/srv", None, "fe80::1%eth0", None, "/srv"),
            ("//host/~/b/c", None, "host", None, "b/c"),
            ("//host/a b/'$(c)", None, "host", None, "/a b/'$(c)"),
        ] {
            let address = parse(text).unwrap();
            let found = (address.user.as_deref(), &*address.host, address.port, address.path().to_str().unwrap());
            assert_eq!(found, (user, host, port, path));
            assert_eq!(address.to_string(), format!("ssh:{text}"));
        }
        assert_eq!(parse("//host/./b").unwrap().path(), Path::new("b"));
        assert_eq!(parse("//host/~").unwrap().path(), Path::new("."));
        assert_eq!(parse("//host/~//etc").unwrap().path(), Path::new("etc"), "below the home, whatever follows");
    }

    #[test]
    fn what_could_be_an_option_a_command_or_a_password_is_refused() {
        for text in [
            "host/x",
            "//host",
            "///path",
            "//host/",
            "//-oProxyCommand=x/path",
            "//-l@host/path",
            "//u@-host/path",
            "//host:0/p",
            "//host:70000/p",
            "//host:x/p",
            "//a;b/p",
            "//a b/p",
            "//$(x)/p",
            "//`x`/p",
            "//u'@h/p",
            "//[::1/p",
            "//host/~root/p",
            "//host/a\0b",
            "//@host/p",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, ParseLocationError::Address("ssh", _)), "{text}: {error}");
        }
        let error = parse("//user:secret@host/p").unwrap_err();
        assert_eq!(error, ParseLocationError::Password("ssh"));
        assert!(!format!("{error} {error:?} {}", error.hint()).contains("secret"));
    }

    #[test]
    fn another_ssh_is_split_at_blanks_and_nothing_changes_nothing() {
        let address = parse("//host/p").unwrap();
        assert_eq!(address.clone().by(None, Some("")), address);
        assert_eq!(address.clone().by(Some("  "), None), address);
        let other = address.by(Some("ssh  -i key"), Some("/opt/compline"));
        assert_eq!((other.ssh, other.program), (vec!["ssh".into(), "-i".into(), "key".into()], "/opt/compline".into()));
    }
}
