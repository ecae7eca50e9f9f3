//! Which snapshots are to be kept: `[retention]` of a plan, as the rules that `archive::retention` decides by.

use super::fields::GROUP_WORDS;
use crate::archive::retention::group::GroupBy;
use crate::archive::retention::{Count, Period, Policy};
use crate::error::Result;
use crate::settings::{Settings, listing};

/// `[retention]` of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The rules.
    pub policy: Policy,
    /// Among which snapshots they choose.
    pub group_by: GroupBy,
}

impl Retention {
    /// Reads a checked table `[retention]`.
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        let Some(keep) = settings.table("keep") else {
            return Err(settings.error("keep", "is missing"));
        };
        let mut policy = Policy {
            within: keep.span("within"),
            tags: settings.text_list("keep_tags"),
            only_complete: settings.boolean("only_complete").unwrap_or(true),
            ..Policy::default()
        };
        for period in Period::ALL {
            let name = period.name().replace('-', "_");
            if let Some(number) = keep.integer(&name) {
                policy.counts.push((period, count(&keep, &name, number)?));
            }
            if let Some(span) = keep.span(&format!("within_{name}")) {
                policy.within_periods.push((period, span));
            }
        }
        // Tags alone are no retention: the night that nobody tagged would be gone the next.
        if !policy.has_rules_of_time() {
            let error = settings.error("keep", "would keep no snapshot at all");
            return Err(error.hint("Give at least one rule, such as keep = { last = 3, daily = 14 }"));
        }
        Ok(Self { policy, group_by: group_by(settings)? })
    }
}

fn count(keep: &Settings, key: &str, number: i64) -> Result<Count> {
    match (number, u32::try_from(number)) {
        (-1, _) => Ok(Count::Every),
        (_, Ok(number)) => Ok(Count::Newest(number)),
        _ => Err(keep.error(key, "must be a number of snapshots, 0 or more, or -1 for all")),
    }
}

fn group_by(settings: &Settings) -> Result<GroupBy> {
    if !settings.has("group_by") {
        return Ok(GroupBy::default());
    }
    let words = settings.text_list("group_by");
    GroupBy::of(words.iter().map(String::as_str)).map_err(|word| {
        let error = settings.error("group_by", format!("has \"{word}\", by which snapshots can't be grouped"));
        error.hint(format!("Write some of {}", listing(&GROUP_WORDS)))
    })
}
