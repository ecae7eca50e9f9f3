//! Kind `none`: stores nothing. It stands in the plan for what is rebuilt from others after a restore, or may be lost,
//! so that the plan names all of the platform.

use std::collections::BTreeMap;

use super::{CaptureEnvironment, Captured, Component, RestoreEnvironment, RestoreStep, Restored};
use crate::archive::CaptureSink;
use crate::error::Result;
use crate::settings::{Field, Settings};

/// It has no keys of its own.
pub(super) const FIELDS: &[Field] = &[];

#[expect(clippy::unnecessary_wraps, reason = "the signature of every kind")]
pub(super) fn build(_: &Settings) -> Result<Box<dyn Component>> {
    Ok(Box::new(Nothing))
}

struct Nothing;

impl Component for Nothing {
    fn discover(&self, _: &CaptureEnvironment<'_>) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    fn capture(&self, _: &CaptureEnvironment<'_>, _: &mut dyn CaptureSink) -> Result<Captured> {
        Ok(Captured { completeness: "there is nothing to store".to_owned(), ..Captured::default() })
    }

    fn plan_restore(&self, _: &RestoreEnvironment<'_>) -> Result<Vec<RestoreStep>> {
        Ok(Vec::new())
    }

    fn restore(&self, _: &RestoreEnvironment<'_>) -> Result<Restored> {
        Ok(Restored::default())
    }
}
