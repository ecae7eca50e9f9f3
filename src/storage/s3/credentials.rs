//! Who asks: the chain of credentials that every tool for S3 knows. A profile that the location names comes first; then the
//! environment, a web identity, the shared files, the container, and last the machine, which alone has to be asked to know
//! whether it has any.
//!
//! What `rust-s3` can get from services it gets by a client whose licence is not among ours; so the whole chain is here,
//! and it asks over lines of our own.
//!
//! **Keys that end.** What services and programs give holds for an hour or so, and a first backup takes longer. Keys are
//! asked for again minutes before they end; while that fails they are used as long as they hold.
//!
//! The chain is defined by the names of its variables; [`environment`] is the one place of it that reads them, and everything
//! else gets them by parameter.

mod profile;
mod service;

use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use self::profile::Files;
use self::service::{Container, Machine, Reason, WebIdentity};
use super::super::web::Web;
use super::super::{StorageError, StorageErrorKind};
use super::address::S3Address;
use crate::pipeline;

/// Asks for a variable; an empty one counts as none.
pub(super) type Variable<'v> = &'v dyn Fn(&str) -> Option<String>;

/// Keys are asked for again when they end within this time ...
const EARLY: SignedDuration = SignedDuration::from_mins(5);
/// ... but not more often than this while they hold: some services give the old ones until the end.
const PAUSE: SignedDuration = SignedDuration::from_mins(1);

const ADVICE: &str = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or put them into ~/.aws/credentials; another section of \
                      that file is chosen by AWS_PROFILE or profile=NAME in the location. docs/src/storage-s3.md has the whole chain";

/// A variable of the process.
#[expect(clippy::disallowed_methods, reason = "the chain of credentials is defined by its variables")]
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What signs requests.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) access_key: String,
    pub(super) secret_key: Zeroizing<String>,
    /// What makes temporary ones valid.
    pub(super) token: Option<Zeroizing<String>>,
    /// None: they hold until somebody takes them back.
    expires: Option<Timestamp>,
}

impl Keys {
    /// Two keys that hold.
    pub(super) fn lasting(access_key: &str, secret_key: &str) -> Self {
        let secret_key = Zeroizing::new(secret_key.to_owned());
        Self { access_key: access_key.to_owned(), secret_key, token: None, expires: None }
    }

    /// Where `get` finds them under the names of the variables or of the settings.
    fn by(get: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let token = get("aws_session_token").map(Zeroizing::new);
        let keys = Self::lasting(&get("aws_access_key_id")?, &get("aws_secret_access_key")?);
        Some(Self { token, ..keys })
    }

    fn end_before(&self, time: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= time)
    }
}

/// Who has keys.
enum Source {
    Given(Keys),
    Process(String),
    WebIdentity(WebIdentity),
    Container(Container),
    Machine(Machine),
}

impl Source {
    fn ask(&self, web: &Web) -> Result<Keys, Reason> {
        match self {
            Self::Given(keys) => Ok(keys.clone()),
            Self::Process(line) => service::of_process(line),
            Self::WebIdentity(identity) => identity.ask(web),
            Self::Container(container) => container.ask(web),
            Self::Machine(machine) => machine.ask(web),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Given(_) => "what was given",
            Self::Process(_) => "credential_process of the profile",
            Self::WebIdentity(_) => "the token service, by AWS_WEB_IDENTITY_TOKEN_FILE",
            Self::Container(_) => "the container",
            Self::Machine(_) => "this machine",
        }
    }
}

/// Keys, whenever they are wanted.
pub(super) struct Credentials {
    source: Source,
    held: Mutex<Held>,
    bucket: String,
}

#[derive(Default)]
struct Held {
    keys: Option<Keys>,
    asked_at: Option<Timestamp>,
}

impl Held {
    /// The keys, unless it is time to ask for others.
    fn fresh(&self, now: Timestamp) -> Option<&Keys> {
        let asked_lately = self.asked_at.is_some_and(|asked_at| now.duration_since(asked_at) < PAUSE);
        self.valid(now).filter(|keys| asked_lately || !keys.end_before(now + EARLY))
    }

    fn valid(&self, now: Timestamp) -> Option<&Keys> {
        self.keys.as_ref().filter(|keys| !keys.end_before(now))
    }
}

impl Credentials {
    /// Finds out who has keys for `address`. Nobody is asked for them yet.
    ///
    /// # Errors
    /// `Denied` if it is nobody.
    pub(super) fn find(address: &S3Address, variable: Variable<'_>) -> Result<Self, StorageError> {
        match source(address, variable) {
            Ok(Some(source)) => Ok(Self::of(source, address)),
            Ok(None) => Err(nobody(address)),
            Err(reason) => Err(nobody(address).cause(reason)),
        }
    }

    /// Those that are given.
    pub(super) fn given(keys: Keys, address: &S3Address) -> Self {
        Self::of(Source::Given(keys), address)
    }

    fn of(source: Source, address: &S3Address) -> Self {
        Self { source, held: Mutex::default(), bucket: address.bucket.clone() }
    }

    /// Keys that hold at `now`. Who comes while others ask for new ones waits for them.
    ///
    /// # Errors
    /// `Denied` when none can be had.
    pub(super) fn keys(&self, web: &Web, now: Timestamp) -> Result<Keys, StorageError> {
        let mut held = pipeline::lock(&self.held);
        if let Some(keys) = held.fresh(now) {
            return Ok(keys.clone());
        }
        held.asked_at = Some(now);
        match self.source.ask(web) {
            Ok(keys) => held.keys = Some(keys),
            Err(reason) => {
                return held.valid(now).cloned().ok_or_else(|| self.failed(reason));
            }
        }
        held.keys.clone().ok_or_else(|| self.failed("nothing was given".into()))
    }

    fn failed(&self, reason: Reason) -> StorageError {
        let what = match &self.source {
            Source::Machine(_) => format!("There are no credentials for s3://{}", self.bucket),
            source => format!("No credentials for s3://{} can be had from {}", self.bucket, source.name()),
        };
        let reason = match &self.source {
            Source::Machine(_) => format!("nor has this machine any: {reason}").into(),
            _ => reason,
        };
        StorageError::with_message(StorageErrorKind::Denied, what).cause(reason).advise(ADVICE)
    }
}

fn nobody(address: &S3Address) -> StorageError {
    let what = match &address.profile {
        Some(profile) => format!("The profile {profile} has no credentials for s3://{}", address.bucket),
        None => format!("There are no credentials for s3://{}", address.bucket),
    };
    StorageError::with_message(StorageErrorKind::Denied, what).advise(ADVICE)
}

/// The region: that of the location, of the environment, or of the profile.
pub(super) fn region(address: &S3Address, variable: Variable<'_>) -> String {
    let of_environment = || variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let of_profile = || {
        let profile = Files::of(variable).profile(&profile_name(address, variable)).ok()?;
        profile.get("region").map(str::to_owned)
    };
    let region = address.region.clone().or_else(of_environment).or_else(of_profile);
    region.unwrap_or_else(|| "us-east-1".to_owned())
}

fn profile_name(address: &S3Address, variable: Variable<'_>) -> String {
    address.profile.clone().or_else(|| variable("AWS_PROFILE")).unwrap_or_else(|| "default".to_owned())
}

/// The first of the chain that says anything.
fn source(address: &S3Address, variable: Variable<'_>) -> Result<Option<Source>, Reason> {
    let region = region(address, variable);
    if address.profile.is_none() {
        let keys = Keys::by(&|name| variable(&name.to_ascii_uppercase())).map(Source::Given);
        let said = keys.or_else(|| WebIdentity::of(variable, &region, address.ca.clone()).map(Source::WebIdentity));
        if said.is_some() {
            return Ok(said);
        }
    }
    let is_named = address.profile.is_some() || variable("AWS_PROFILE").is_some();
    let of_profile = of_profile(&profile_name(address, variable), variable, is_named)?;
    if of_profile.is_some() || is_named {
        return Ok(of_profile);
    }
    match Container::of(variable) {
        Some(container) => Ok(Some(Source::Container(container?))),
        None => Ok(Machine::of(variable).map(Source::Machine)),
    }
}

/// # Errors
/// When a file can't be read, or a profile that was named has none and says why.
fn of_profile(name: &str, variable: Variable<'_>, is_named: bool) -> Result<Option<Source>, Reason> {
    let profile = Files::of(variable).profile(name)?;
    let keys = Keys::by(&|name| profile.get(name).map(str::to_owned)).map(Source::Given);
    let said = keys.or_else(|| profile.get("credential_process").map(|line| Source::Process(line.to_owned())));
    let foreign = ["role_arn", "sso_session", "sso_start_url", "source_profile"].into_iter();
    let foreign = foreign.filter(|_| said.is_none() && is_named).find(|name| profile.get(name).is_some());
    match foreign {
        None => Ok(said),
        Some(setting) => Err(format!(
            "profile {name} has `{setting}`, which compline leaves to the tools of AWS; give it \
             `credential_process = aws configure export-credentials --profile OTHER`"
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::web::tls;
    use super::*;

    fn named(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        move |wanted| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
    }

    fn first(address: &S3Address, variables: &[(&str, &str)]) -> Option<&'static str> {
        let found = source(address, &named(variables)).expect("it can be read");
        found.map(|source| match source {
            Source::Given(_) => "given",
            Source::Process(_) => "process",
            Source::WebIdentity(_) => "web identity",
            Source::Container(_) => "container",
            Source::Machine(_) => "machine",
        })
    }

    #[test]
    fn the_chain_is_gone_through_in_order_and_the_machine_is_its_end() {
        let home = tempfile::TempDir::new().expect("a directory");
        std::fs::create_dir(home.path().join(".aws")).expect("it is new");
        let process = "[default]\ncredential_process = printf x\n[profile keys]\naws_access_key_id=A\naws_secret_access_key=B\n\
                       [profile sso]\nsso_session = y\n";
        std::fs::write(home.path().join(".aws/config"), process).expect("it is new");
        let mut variables = vec![
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "B"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn"),
            ("HOME", home.path().to_str().expect("text")),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/keys"),
        ];
        let mut address = S3Address::new("bucket", "");
        let mut seen = Vec::new();
        while !variables.is_empty() {
            seen.extend(first(&address, &variables));
            variables.remove(0);
        }
        seen.extend(first(&address, &[]));
        assert_eq!(seen, ["given", "web identity", "web identity", "process", "process", "container", "machine"]);
        assert_eq!(first(&address, &[("AWS_EC2_METADATA_DISABLED", "true")]), None);
        let home = ("HOME", home.path().to_str().expect("text"));
        let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "B"), home];
        address.profile = Some("nobody".to_owned());
        assert_eq!(first(&address, &keys), None, "a profile of the location counts before keys of the environment");
        address.profile = None;
        assert_eq!(first(&address, &[("AWS_PROFILE", "keys"), home]), Some("given"));
        assert_eq!(first(&address, &[("AWS_PROFILE", "nobody"), home]), None);
        let reason = source(&address, &named(&[("AWS_PROFILE", "sso"), home])).err().expect("it is for others");
        assert!(reason.to_string().contains("credential_process"), "{reason}");
    }

    #[test]
    fn the_region_is_that_of_the_location_the_environment_or_the_profile() {
        let config = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(config.path(), "[default]\nregion = eu-west-1\n").expect("it can be written");
        let file = ("AWS_CONFIG_FILE", config.path().to_str().expect("text"));
        let mut address = S3Address::new("bucket", "");
        assert_eq!(region(&address, &named(&[])), "us-east-1");
        assert_eq!(region(&address, &named(&[file])), "eu-west-1");
        assert_eq!(region(&address, &named(&[file, ("AWS_DEFAULT_REGION", "x")])), "x");
        address.region = Some("here".to_owned());
        assert_eq!(region(&address, &named(&[file, ("AWS_REGION", "x")])), "here");
    }

    #[test]
    fn keys_that_still_hold_are_used_while_nobody_gives_others() {
        let place = tempfile::TempDir::new().expect("a directory");
        let web = Web::new(tls::configuration(true, None).expect("TLS"), std::time::Duration::ZERO, "x", "")
            .expect("threads");
        let file = place.path().join("keys");
        let give = |key: &str, end: &str| {
            let text = format!(r#"{{"Version":1,"AccessKeyId":"{key}","SecretAccessKey":"s","Expiration":"{end}"}}"#);
            std::fs::write(&file, text).expect("it can be written");
        };
        let source = Source::Process(format!("cat '{}'", file.display()));
        let credentials = Credentials::of(source, &S3Address::new("bucket", ""));
        let at = |time: &str| credentials.keys(&web, time.parse().expect("a time")).map(|keys| keys.access_key);
        give("first", "2026-11-20T03:00:00Z");
        assert_eq!(at("2026-11-20T02:00:00Z").expect("keys"), "first");
        std::fs::remove_file(&file).expect("it was there");
        assert_eq!(at("2026-11-20T02:54:00Z").expect("nobody was asked"), "first");
        assert_eq!(at("2026-11-20T02:58:00Z").expect("nobody gave others"), "first");
        let error = at("2026-11-20T03:00:00Z").expect_err("they have ended");
        assert!(
            error.kind() == StorageErrorKind::Denied && error.to_string().contains("credential_process"),
            "{error}"
        );
        give("second", "2026-11-20T05:00:00Z");
        assert_eq!(at("2026-11-20T03:00:01Z").expect("keys"), "second");
    }

    #[test]
    fn keys_are_fresh_until_shortly_before_they_end_and_valid_until_then() {
        let end: Timestamp = "2026-11-20T03:00:00Z".parse().expect("a time");
        let keys = Keys { expires: Some(end), ..Keys::lasting("a", "b") };
        let asked_at = Some(end - SignedDuration::from_hours(1));
        let mut held = Held { keys: Some(keys), asked_at };
        let before = |seconds| end - SignedDuration::from_secs(seconds);
        assert!(held.fresh(before(301)).is_some());
        assert!(held.fresh(before(299)).is_none() && held.valid(before(1)).is_some() && held.valid(end).is_none());
        held.asked_at = Some(before(200));
        assert!(held.fresh(before(150)).is_some(), "asked a moment ago, and the same came back");
        assert!(held.fresh(before(140)).is_none() && held.fresh(end).is_none());
        held.keys = Some(Keys::lasting("a", "b"));
        assert!(held.fresh(end).is_some());
    }
}
