//! Who asks: the chain of credentials that every tool for S3 knows, in the order of AWS. A profile that is named comes
//! first; then the environment, then the shared file. What `rust-s3` can get from services (web identity, container,
//! machine) it gets by a client whose licence is not among ours.
//!
//! The chain is defined by the names of its variables, and the library reads most of them by itself; so this is the one
//! place of storage that reads the environment.

use s3::creds::Credentials;

use super::super::{StorageError, StorageErrorKind};
use super::address::S3Address;

/// A variable of the chain; an empty one counts as none.
#[expect(clippy::disallowed_methods, reason = "the chain of credentials is defined by its variables")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Credentials for `address`.
///
/// # Errors
/// `Denied` if there are none.
pub(super) fn find(address: &S3Address) -> Result<Credentials, StorageError> {
    let found = match &address.profile {
        Some(profile) => Credentials::from_profile(Some(profile)),
        None => Credentials::new(None, None, None, None, variable("AWS_PROFILE").as_deref()),
    };
    found.map_err(|cause| {
        let what = match &address.profile {
            Some(profile) => format!("The profile {profile} has no credentials for s3://{}", address.bucket),
            None => format!("There are no credentials for s3://{}", address.bucket),
        };
        StorageError::with_message(StorageErrorKind::Denied, what).cause(cause).advise(
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or put them into ~/.aws/credentials; another section of \
             that file is chosen by AWS_PROFILE or profile=NAME in the location",
        )
    })
}
