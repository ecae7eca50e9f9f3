//! Keys for some hours, from whoever vouches for this process: a program, the token service by a web identity, the container, the
//! machine.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Keys, Variable};
use crate::storage::web::{Errand, Web};

/// Why there are no keys.
pub(super) type Reason = Box<dyn StdError + Send + Sync>;

const CONTAINER: &str = "http://169.254.170.2";
const MACHINE: &str = "http://169.254.169.254";
const MACHINE_V6: &str = "http://[fd00:ec2::254]";
/// Who may be asked without TLS: the loopback, and the agents of ECS and EKS.
const NEAR_HOSTS: [&str; 6] = ["localhost", "127.0.0.1", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
const MACHINE_TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const MACHINE_TOKEN_SECONDS: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

/// What all but one of them answer with.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    #[serde(alias = "SessionToken")]
    token: Option<Zeroizing<String>>,
    expiration: Option<Timestamp>,
}

impl From<Answer> for Keys {
    fn from(answer: Answer) -> Self {
        let Answer { access_key_id, secret_access_key, token, expiration } = answer;
        Self { access_key: access_key_id, secret_key: secret_access_key, token, expires: expiration }
    }
}

/// A program that prints keys: `credential_process` of a profile.
pub(super) fn of_process(line: &str) -> Result<Keys, Reason> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null()).stderr(Stdio::piped());
    let output = command.output()?;
    let (printed, said) = (Zeroizing::new(output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("credential_process ended with {}: {}", output.status, said.trim()).into());
    }
    let answer: Answer = serde_json::from_slice(&printed).map_err(|_| "credential_process printed something else")?;
    Ok(answer.into())
}

/// A token of somebody whom AWS, or another server, trusts: how pods have a role.
pub(super) struct WebIdentity {
    role: String,
    session: String,
    token_file: PathBuf,
    service: String,
    ca: Option<PathBuf>,
}

impl WebIdentity {
    pub(super) fn of(variable: Variable<'_>, region: &str, ca: Option<PathBuf>) -> Option<Self> {
        let country = if region.starts_with("cn-") { ".cn" } else { "" };
        let service = variable("AWS_ENDPOINT_URL_STS").or_else(|| variable("AWS_ENDPOINT_URL"));
        Some(Self {
            token_file: variable("AWS_WEB_IDENTITY_TOKEN_FILE")?.into(),
            role: variable("AWS_ROLE_ARN")?,
            session: variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "compline".to_owned()),
            service: service.unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com{country}")),
            ca: ca.or_else(|| variable("AWS_CA_BUNDLE").map(PathBuf::from)),
        })
    }

    /// The token is read each time: it is replaced before it ends, as the keys are.
    pub(super) fn ask(&self, web: &Web) -> Result<Keys, Reason> {
        let token = std::fs::read_to_string(&self.token_file).map(Zeroizing::new);
        let token = token.map_err(|cause| format!("{}: {cause}", self.token_file.display()))?;
        let mut errand = Errand::get(Url::parse(&self.service)?, false);
        errand.method = Method::POST;
        errand.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &self.role),
            ("RoleSessionName", &self.session),
            ("WebIdentityToken", token.trim()),
        ];
        errand.body = form(&fields)?;
        errand.ca.clone_from(&self.ca);
        let answer: Assumed = quick_xml::de::from_str(&errand.run(web)?).map_err(|_| "answered with something else")?;
        Ok(answer.result.credentials.into())
    }
}

#[derive(Deserialize)]
struct Assumed {
    #[serde(rename = "AssumeRoleWithWebIdentityResult")]
    result: AssumedResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumedResult {
    credentials: Answer,
}

fn form(fields: &[(&str, &str)]) -> Result<Zeroizing<String>, Reason> {
    let url = Url::parse_with_params("form:", fields)?;
    Ok(Zeroizing::new(url.query().unwrap_or_default().to_owned()))
}

/// Who runs the container this is in: ECS, EKS.
pub(super) struct Container {
    url: Url,
    token: Option<Zeroizing<String>>,
    token_file: Option<PathBuf>,
}

impl Container {
    /// None where no variable speaks of one.
    ///
    /// # Errors
    /// When the address is none, or one to which no secret should be sent.
    pub(super) fn of(variable: Variable<'_>) -> Option<Result<Self, Reason>> {
        let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{CONTAINER}{path}"));
        let url = relative.or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))?;
        let token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Zeroizing::new);
        let token_file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
        Some(trusted(&url).map(|url| Self { url, token, token_file }))
    }

    pub(super) fn ask(&self, web: &Web) -> Result<Keys, Reason> {
        let read =
            |file: &PathBuf| std::fs::read_to_string(file).map_err(|cause| format!("{}: {cause}", file.display()));
        let token = match &self.token_file {
            Some(file) => Some(Zeroizing::new(read(file)?)),
            None => self.token.clone(),
        };
        let mut errand = Errand::get(self.url.clone(), is_near(&self.url));
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token.trim())?;
            token.set_sensitive(true);
            errand.headers.insert(AUTHORIZATION, token);
        }
        keys(&errand.run(web)?)
    }
}

fn is_near(url: &Url) -> bool {
    url.scheme() == "http"
}

/// An address to which a token may be sent.
fn trusted(text: &str) -> Result<Url, Reason> {
    let url = Url::parse(text)?;
    let is_near_host = url.host_str().is_some_and(|host| NEAR_HOSTS.contains(&host));
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near_host => Ok(url),
        _ => Err("AWS_CONTAINER_CREDENTIALS_FULL_URI names another machine without https".into()),
    }
}

/// The machine this runs on: the metadata of EC2, in the version that wants a token.
pub(super) struct Machine(String);

impl Machine {
    /// None where it is not to be asked.
    pub(super) fn of(variable: Variable<'_>) -> Option<Self> {
        let is_disabled = variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let mode = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
        let usual = if mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6")) { MACHINE_V6 } else { MACHINE };
        let place = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| usual.to_owned());
        (!is_disabled).then(|| Self(place.trim_end_matches('/').to_owned()))
    }

    pub(super) fn ask(&self, web: &Web) -> Result<Keys, Reason> {
        let place = |path: &str| Url::parse(&format!("{}/latest/{path}", self.0));
        let mut errand = Errand::get(place("api/token")?, true);
        errand.method = Method::PUT;
        errand.headers.insert(MACHINE_TOKEN_SECONDS, HeaderValue::from_static("300"));
        let token = HeaderValue::from_str(errand.run(web)?.trim())?;
        let ask = |path: &str| {
            let mut errand = Errand::get(place(path)?, true);
            errand.headers.insert(MACHINE_TOKEN, token.clone());
            errand.run(web)
        };
        let roles = ask("meta-data/iam/security-credentials/")?;
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let role = role.ok_or("the machine has no role")?;
        keys(&ask(&format!("meta-data/iam/security-credentials/{role}"))?)
    }
}

fn keys(text: &str) -> Result<Keys, Reason> {
    let answer: Answer = serde_json::from_str(text).map_err(|_| "answered without keys")?;
    Ok(answer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sent_to_neighbours_and_over_tls_alone() {
        for text in
            ["http://169.254.170.23/v1", "http://localhost:1/x", "http://[fd00:ec2::23]/", "https://far.example/"]
        {
            trusted(text).expect(text);
        }
        for text in ["http://far.example/", "ftp://localhost/", "http://169.254.170.2@far.example/", "x"] {
            trusted(text).expect_err(text);
        }
    }

    #[test]
    fn what_a_form_holds_is_encoded() {
        let text = form(&[("RoleArn", "arn:aws:iam::1:role/a b"), ("Token", "a+b&c=")]).expect("a form");
        assert_eq!(*text, "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa+b&Token=a%2Bb%26c%3D");
    }
}
