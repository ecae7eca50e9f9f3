//! Reaching a server: where it is, who asks, and the password, which goes through a file that only its owner reads.

use std::fmt;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use super::client::{self, Client};
use super::{failure, session};
use crate::components::process::{Chain, Limits, Program};
use crate::error::{Error, Result};
use crate::observer::Context;
use crate::settings::{Field, SecretSource, Settings, Shape};

/// Keys of `connect`.
pub const CONNECT_FIELDS: &[Field] = &[
    Field::optional("host", Shape::Text, "Host name or address"),
    Field::optional("socket", Shape::Text, "Directory of the server's Unix socket, instead of `host`"),
    Field::optional("port", Shape::Integer, "Port"),
    Field::optional("user", Shape::Text, "Role to connect as; a superuser, to dump and restore everything"),
    Field::optional("password", Shape::Secret, "Where the password comes from"),
    Field::optional("service", Shape::Text, "Name of a connection service of libpq"),
    Field::optional(
        "tls",
        Shape::OneOf(&["disable", "prefer", "require", "verify-ca", "verify-full"]),
        "How the connection is protected",
    ),
    Field::optional("database", Shape::Text, "Database to connect to for the server's affairs; `postgres` if not set"),
];

/// Seconds that connecting may take.
const CONNECT_TIMEOUT: &str = "30";

/// Where a server is and who asks it. What is absent is libpq's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connect {
    /// Host name, address or directory of a socket.
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<SecretSource>,
    service: Option<String>,
    tls: Option<String>,
    database: Option<String>,
}

impl Connect {
    /// From settings that were checked against [`CONNECT_FIELDS`].
    ///
    /// # Errors
    /// `InvalidPlan`.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        if settings.has("host") && settings.has("socket") {
            return Err(settings.error("socket", "and \"host\" exclude each other"));
        }
        let port = settings.integer("port").map(u16::try_from).transpose();
        Ok(Self {
            host: settings.text("host").or_else(|| settings.text("socket")),
            port: port.map_err(|_| settings.error("port", "must be between 0 and 65535"))?,
            user: settings.text("user"),
            password: settings.secret("password"),
            service: settings.text("service"),
            tls: settings.text("tls"),
            database: settings.text("database"),
        })
    }

    /// This one with whatever `other` sets. Another host or service is another server: no port of this one goes there.
    #[must_use]
    pub fn overridden_by(&self, other: &Self) -> Self {
        let elsewhere = other.host.is_some() || other.service.is_some();
        let kept = |ours: &Option<String>| ours.clone().filter(|_| !elsewhere);
        Self {
            host: other.host.clone().or_else(|| kept(&self.host)),
            port: other.port.or(self.port.filter(|_| !elsewhere)),
            user: other.user.clone().or_else(|| self.user.clone()),
            password: other.password.clone().or_else(|| self.password.clone()),
            service: other.service.clone().or_else(|| kept(&self.service)),
            tls: other.tls.clone().or_else(|| self.tls.clone()),
            database: other.database.clone().or_else(|| self.database.clone()),
        }
    }

    /// The connection string for `database`. Everything is spelt out, since the name of a database may look like a
    /// connection string itself.
    fn string(&self, database: &str) -> String {
        let port = self.port.map(|port| port.to_string());
        let parts = [
            ("service", self.service.as_deref()),
            ("host", self.host.as_deref()),
            ("port", port.as_deref()),
            ("user", self.user.as_deref()),
            ("sslmode", self.tls.as_deref()),
            ("connect_timeout", Some(CONNECT_TIMEOUT)),
            ("dbname", Some(database)),
        ];
        let parts = parts.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={}", quoted(value))));
        parts.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.service, &self.host) {
            (Some(service), _) => write!(f, "service {service}")?,
            (None, Some(host)) => write!(f, "{host}")?,
            (None, None) => write!(f, "the default socket")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// A value of a connection string.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// `server_version_num`.
    pub number: u32,
    /// Unique to a data directory; none where the role may not ask.
    pub system_identifier: Option<String>,
    /// The role we are connected as.
    pub user: String,
    /// Whether it is a superuser.
    pub superuser: bool,
}

impl Server {
    /// First part of the version.
    pub fn major(&self) -> u32 {
        self.number / 10_000
    }
}

/// A server that answers, with the programs to talk to it.
pub struct Access<'a> {
    /// Clock, observer, wish to stop.
    pub context: Context<'a>,
    /// What the programs are.
    pub client: Client,
    /// What the server is.
    pub server: Server,
    /// How long a program may take.
    pub limits: Limits,
    connect: Connect,
    /// Removed when this is dropped.
    password_file: Option<NamedTempFile>,
}

impl<'a> Access<'a> {
    /// Asks the server who it is, and finds programs that fit.
    ///
    /// # Errors
    /// When the password can't be had, the server doesn't answer, or no client fits.
    pub fn open(
        context: Context<'a>,
        connect: &Connect,
        bin: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<String>,
        scratch: &Path,
        limits: Limits,
    ) -> Result<Self> {
        let password_file =
            connect.password.as_ref().map(|source| write_password(source, variable, scratch)).transpose()?;
        let psql = client::program(client::any_psql(bin).as_deref(), "psql");
        let psql = equip(psql, connect, connect.database(), password_file.as_ref());
        let server = ask_server(context, psql, limits).map_err(|error| unreachable(error, connect))?;
        let client = Client::find(context, bin, server.major())?;
        Ok(Self { context, client, server, limits, connect: connect.clone(), password_file })
    }

    /// The program `tool`, made to connect to `database`.
    pub fn program(&self, tool: &str, database: &str) -> Program {
        equip(self.client.program(tool), &self.connect, database, self.password_file.as_ref())
    }

    /// Runs statements in `database` and returns what they print, one line for each row.
    ///
    /// # Errors
    /// When one of them fails; those before it have had their effect.
    pub fn run(&self, database: &str, statements: &str) -> Result<String> {
        let psql = session::psql(self.program("psql", database));
        let output = Chain::single(psql, self.limits).output(self.context, statements.as_bytes())?;
        Ok(output.text())
    }

    /// The database for the server's affairs.
    pub fn maintenance(&self) -> &str {
        self.connect.database()
    }
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {} at {}", self.server.version, self.connect)
    }
}

impl Connect {
    fn database(&self) -> &str {
        self.database.as_deref().unwrap_or("postgres")
    }
}

fn equip(program: Program, connect: &Connect, database: &str, password_file: Option<&NamedTempFile>) -> Program {
    let program = program
        .arg("--no-password")
        .arg(format!("--dbname={}", connect.string(database)))
        .variable("LC_ALL", "C")
        .variable("PGAPPNAME", "compline")
        .without_variable("PGCLIENTENCODING");
    match password_file {
        Some(file) => program.variable("PGPASSFILE", file.path()).without_variable("PGPASSWORD"),
        None => program,
    }
}

/// Temporary files have mode 0600, which libpq insists on.
fn write_password(
    source: &SecretSource,
    variable: &dyn Fn(&str) -> Option<String>,
    scratch: &Path,
) -> Result<NamedTempFile> {
    let password = source.resolve(variable)?;
    let failed = |cause| Error::io("Can't write a password file", cause);
    let mut file = tempfile::Builder::new().prefix("pgpass-").tempfile_in(scratch).map_err(failed)?;
    file.write_all(b"*:*:*:*:").map_err(failed)?;
    for byte in password.bytes() {
        let escaped: &[u8] = if matches!(byte, b':' | b'\\') { &[b'\\', byte] } else { &[byte] };
        file.write_all(escaped).map_err(failed)?;
    }
    file.write_all(b"\n").map_err(failed)?;
    Ok(file)
}

const WHO_ARE_YOU: &str = "
SELECT current_setting('server_version_num'), current_setting('server_version'), current_user,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
       has_function_privilege('pg_control_system()', 'execute');
";

fn ask_server(context: Context<'_>, psql: Program, limits: Limits) -> Result<Server> {
    let psql = session::psql(psql);
    let ask = |statement: &str| -> Result<String> {
        Ok(Chain::single(psql.clone(), limits).output(context, statement.as_bytes())?.text())
    };
    let answer = ask(&format!("\\pset fieldsep '\\t'\n{WHO_ARE_YOU}"))?;
    let fields: Vec<&str> = answer.lines().last().unwrap_or_default().split('\t').collect();
    let [number, version, user, superuser, may_ask] = fields[..] else {
        return Err(failure(format!("The server answered \"{answer}\" when asked for its version")));
    };
    let number = number.parse().map_err(|_| failure(format!("The server calls its version {number}")))?;
    let system_identifier =
        if may_ask == "t" { Some(ask("SELECT system_identifier FROM pg_control_system();")?) } else { None };
    Ok(Server {
        version: version.to_owned(),
        number,
        system_identifier,
        user: user.to_owned(),
        superuser: superuser == "t",
    })
}

/// The texts are for the hint alone.
fn unreachable(error: Error, connect: &Connect) -> Error {
    let chain = error.chain();
    let said = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    let hint = if error.hint_text().is_some() {
        None
    } else if said(&["password authentication failed", "no password supplied"]) {
        Some("Check `connect.user` and where `connect.password` comes from")
    } else if said(&["Connection refused", "No such file", "could not translate", "timeout expired", "No route"]) {
        Some("Check that the server runs, and `connect.host`, `connect.port` or `connect.socket`")
    } else if said(&["does not exist"]) {
        Some("Check `connect.user` and `connect.database`")
    } else if said(&["pg_hba.conf", "SSL", "certificate"]) {
        Some("Check `connect.tls` and the server's pg_hba.conf")
    } else {
        Some("Try the same with psql, as the same user")
    };
    let error = error.context(format!("Can't connect to PostgreSQL at {connect}"));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_name_can_never_become_a_connection_string() {
        let connect = Connect { host: Some("db.internal".into()), port: Some(5433), ..Connect::default() };
        assert_eq!(
            connect.string("x' host='evil\\"),
            "host='db.internal' port='5433' connect_timeout='30' dbname='x\\' host=\\'evil\\\\'"
        );
    }

    #[test]
    fn another_host_takes_nothing_of_the_place_but_keeps_the_person() {
        let ours = Connect { host: Some("a".into()), port: Some(1), user: Some("u".into()), ..Connect::default() };
        let elsewhere = ours.overridden_by(&Connect { host: Some("b".into()), ..Connect::default() });
        assert_eq!(elsewhere, Connect { host: Some("b".into()), user: Some("u".into()), ..Connect::default() });
        assert_eq!(ours.overridden_by(&Connect::default()), ours);
    }
}
