//! Kinds that need a server, against real ones. The programs come from Debian's packages (`tests/run` installs them):
//! postgresql, postgresql-contrib, openssh-server, openssh-sftp-server.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unnecessary_debug_formatting,
    reason = "a test says what went wrong by stopping, and what it skips; paths are quoted as TOML wants them"
)]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/rough_line.rs"]
mod rough_line;
#[path = "../support/stage.rs"]
mod stage;

mod azure;
mod copies;
#[path = "../support/gate.rs"]
mod gate;
mod host;
mod hosts;
mod mounts;
mod night;
mod postgres;
mod postgres_server;
mod rough;
mod s3;
#[path = "../support/s3_server.rs"]
mod s3_server;
mod ssh;
#[path = "../support/ssh_server.rs"]
mod ssh_server;
