//! Keys for a bucket from whoever vouches for a process. The services of AWS can't be had here: what answers in their place
//! are small servers in this process that were written from their documentation.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use compline::storage::{ObjectKind, S3Storage, Storage, StorageErrorKind};
use tempfile::TempDir;

use super::pack;
use super::s3::address;
use super::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};

/// A request to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// `GET /path`
    line: String,
    /// `name: value`, in small letters.
    headers: Vec<String>,
    body: String,
}

impl Asked {
    fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|had| had == header)
    }
}

/// A server of one's own: status and body for each request.
struct Service {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Service {
    fn start(mut answer: impl FnMut(&Asked) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = Arc::clone(&service.asked);
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read(&stream);
                let (status, body) = answer(&request);
                asked.lock().unwrap().push(request);
                let head =
                    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        service
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<String> = lines.into_iter().map(|line| line.to_lowercase()).collect();
    let len =
        headers.iter().find_map(|header| header.strip_prefix("content-length: ")).map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    Asked { line, headers, body: String::from_utf8(body).unwrap() }
}

/// The right keys, with a token, until `end`.
fn keys(token: &str, end: &str) -> String {
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}",
        "Token":"{token}","Expiration":"{end}"}}"#
    )
}

const FAR: &str = "2199-01-01T00:00:00Z";
const PAST: &str = "2020-01-01T00:00:00Z";

fn storage(server: &S3Server, variables: &[(&str, String)]) -> Result<S3Storage, compline::storage::StorageError> {
    let variable = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
    S3Storage::open_in(&address(&server.location("x")), &variable)
}

/// The tokens that the bucket was shown, in order.
fn tokens(server: &S3Server) -> Vec<String> {
    let requests = server.take_requests();
    requests.iter().map(|seen| seen.header("x-amz-security-token").unwrap_or("none").to_owned()).collect()
}

#[test]
fn a_web_identity_is_exchanged_for_keys_and_again_before_they_end() {
    let server = S3Server::start();
    let place = TempDir::new().unwrap();
    let file = place.path().join("token");
    std::fs::write(&file, "first+token\n").unwrap();
    let mut count = 0;
    let service = Service::start(move |_| {
        count += 1;
        let end = if count == 1 { PAST } else { FAR };
        let xml = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>x</SubjectFromWebIdentityToken><Credentials>\
             <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
             <SessionToken>session-{count}</SessionToken><Expiration>{end}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        (200, xml)
    });
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap().to_owned()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/backup".to_owned()),
        ("AWS_ENDPOINT_URL_STS", service.url("/")),
    ];
    let storage = storage(&server, &variables).unwrap();
    assert_eq!(service.asked(), [], "nobody is asked before there is something to ask for");
    storage.list(ObjectKind::Pack).unwrap();
    std::fs::write(&file, "second-token").unwrap();
    for _ in 0..3 {
        storage.list(ObjectKind::Pack).unwrap();
    }
    let asked = service.asked();
    let bodies: Vec<&str> = asked.iter().map(|asked| asked.body.as_str()).collect();
    let form = |token: &str| {
        format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fbackup&\
             RoleSessionName=compline&WebIdentityToken={token}"
        )
    };
    assert_eq!(bodies, [form("first%2Btoken"), form("second-token")]);
    assert!(
        asked
            .iter()
            .all(|asked| asked.line == "POST /" && asked.has("content-type: application/x-www-form-urlencoded"))
    );
    assert_eq!(tokens(&server), ["session-1", "session-2", "session-2", "session-2"]);
}

#[test]
fn a_container_gives_keys_for_the_token_in_its_file() {
    let server = S3Server::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pod-token\n").unwrap();
    let service = Service::start(|_| (200, keys("of-the-container", FAR)));
    let mut variables = vec![
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/v1/credentials")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "task-token".to_owned()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path().to_str().unwrap().to_owned()),
    ];
    for token in ["pod-token", "task-token"] {
        let storage = storage(&server, &variables).unwrap();
        storage.list(ObjectKind::Pack).unwrap();
        storage.list(ObjectKind::Pack).unwrap();
        let asked = service.asked().pop().unwrap();
        assert!(asked.line == "GET /v1/credentials" && asked.has(&format!("authorization: {token}")), "{asked:?}");
        variables.pop();
    }
    assert_eq!(service.asked().len(), 2, "once for each run");
    assert_eq!(tokens(&server), ["of-the-container"; 4]);
    let elsewhere = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://far.example/".to_owned())];
    let error = storage(&server, &elsewhere).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("without https"), "{error}");
}

/// The metadata of a machine, which wants its token.
fn machine() -> Service {
    Service::start(|asked| {
        let has_token = asked.has("x-aws-ec2-metadata-token: right");
        match asked.line.as_str() {
            "PUT /latest/api/token" if asked.has("x-aws-ec2-metadata-token-ttl-seconds: 300") => {
                (200, "right".to_owned())
            }
            "GET /latest/meta-data/iam/security-credentials/" if has_token => (200, "backup-role".to_owned()),
            "GET /latest/meta-data/iam/security-credentials/backup-role" if has_token => {
                (200, keys("of-the-machine", FAR))
            }
            _ => (401, String::new()),
        }
    })
}

#[test]
fn a_machine_gives_the_keys_of_its_role_and_is_asked_last() {
    let server = S3Server::start();
    let service = machine();
    let metadata = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url("/"));
    let of_environment = [
        metadata.clone(),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
    ];
    storage(&server, &of_environment).unwrap().put_new(&pack(1), b"x").unwrap();
    let disabled = [metadata.clone(), ("AWS_EC2_METADATA_DISABLED", "TRUE".to_owned())];
    assert_eq!(storage(&server, &disabled).unwrap_err().kind(), StorageErrorKind::Denied);
    assert_eq!(service.asked(), []);
    let _of_environment = server.take_requests();
    let storage = storage(&server, &[metadata]).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(*storage.get(&pack(1)).unwrap(), *b"x"));
        }
    });
    assert_eq!(service.asked().len(), 3, "one thread asks, the others wait for it");
    assert_eq!(tokens(&server), ["of-the-machine"; 4]);
}

#[test]
fn a_service_that_stumbles_is_asked_again() {
    let server = S3Server::start();
    let mut count = 0;
    let service = Service::start(move |_| {
        count += 1;
        if count < 3 { (503, String::new()) } else { (200, keys("at-last", FAR)) }
    });
    let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.url("/"))];
    storage(&server, &variables).unwrap().put_new(&pack(1), b"x").unwrap();
    assert_eq!(service.asked().len(), 3);
}

#[test]
fn who_gives_no_keys_is_named_with_what_to_do() {
    let server = S3Server::start();
    let refusing = Service::start(|_| (403, "<Error><Code>AccessDenied</Code></Error>".to_owned()));
    let talking = Service::start(|_| (200, "{\"Code\":\"AssumeRoleUnauthorizedAccess\"}".to_owned()));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("http://127.0.0.1:{port}");
    let container = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let started = Instant::now();
    for (variable, url, what, why) in [
        (container, refusing.url("/"), "from the container", "403 AccessDenied"),
        (container, talking.url("/"), "from the container", "without keys"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody, "There are no credentials", "refused"),
    ] {
        let error = storage(&server, &[(variable, url)]).unwrap().get(&pack(1)).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.kind(), StorageErrorKind::Denied);
        assert!(error.to_string().contains(what) && cause.contains(why), "{error}: {cause}");
        assert!(error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));
    }
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(server.take_requests().is_empty(), "nothing is sent that nobody signed");
}
