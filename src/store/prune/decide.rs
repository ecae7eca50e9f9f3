//! What to do with each pack. Pure: the same use gives the same decision, and a rehearsal shows the one that is carried out.

use serde::Serialize;

use crate::id::PackId;
use crate::store::index::{PackUse, Standing};
use crate::store::pack::Role;
use crate::units::parse_size;

/// How much of a repository may be unused before packs are rewritten.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Allowance {
    /// One part in hundred of what is needed, times this.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
    /// Any: only packs of which nothing is needed go.
    Unlimited,
}

impl Default for Allowance {
    fn default() -> Self {
        Self::Percent(5.0)
    }
}

impl Allowance {
    /// Reads `5%`, a size such as `500MiB`, or `unlimited`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "unlimited" {
            return Some(Self::Unlimited);
        }
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().ok()?;
                (0.0..=100.0).contains(&percent).then_some(Self::Percent(percent))
            }
            None => parse_size(text).map(Self::Bytes),
        }
    }

    fn of(self, live_len: u64) -> u64 {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of many bytes, more or less"
            )]
            Self::Percent(percent) => (live_len as f64 * percent / 100.0) as u64,
            Self::Bytes(bytes) => bytes,
            Self::Unlimited => u64::MAX,
        }
    }
}

/// A pack shorter than one part in so many of what packs should be is small.
const SMALL_SHARE: u64 = 4;
/// So many small packs of one role are worth being joined.
const SMALL_COUNT_MIN: usize = 32;

/// What happens to packs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Nothing in them is needed: they go.
    #[serde(skip)]
    pub drop: Vec<PackId>,
    /// What is needed in them is put elsewhere, then they go. Those with the greatest unused share come first.
    #[serde(skip)]
    pub rewrite: Vec<PackId>,
    /// Packs in all.
    pub packs: u64,
    /// Bytes of all packs.
    pub bytes: u64,
    /// Bytes of them that are needed.
    pub bytes_needed: u64,
    /// Packs that go as they are.
    pub packs_unused: u64,
    /// Their bytes.
    pub bytes_unused: u64,
    /// Packs that are rewritten.
    pub packs_rewritten: u64,
    /// Bytes that are put elsewhere for that.
    pub bytes_rewritten: u64,
    /// Bytes that become free in all.
    pub bytes_freed: u64,
    /// Unused bytes that stay in packs that are not worth rewriting.
    pub bytes_left: u64,
}

/// Decides.
#[must_use]
pub fn decide(packs: &[PackUse], allowance: Allowance, pack_len: u64) -> Decision {
    let sum = |packs: &mut dyn Iterator<Item = u64>| packs.sum::<u64>();
    let unused = |pack: &PackUse| pack.frames_len - pack.live_len;
    let mut decision = Decision {
        packs: packs.len() as u64,
        bytes: sum(&mut packs.iter().map(|pack| pack.len)),
        bytes_needed: sum(&mut packs.iter().map(|pack| pack.live_len)),
        ..Decision::default()
    };
    let (used, dead): (Vec<&PackUse>, Vec<&PackUse>) = packs.iter().partition(|pack| pack.live_len > 0);
    // What somebody else has on a list and is needed after all has to go elsewhere, whatever it costs.
    let (lent, mut used): (Vec<&PackUse>, Vec<&PackUse>) =
        used.into_iter().partition(|pack| pack.standing == Standing::RetiredByOthers);
    let mut rewrite: Vec<&PackUse> = lent;
    // The greatest unused share first; of equal ones the order is that of names, for everybody the same.
    used.sort_by(|a, b| {
        let share = |of: &PackUse, other: &PackUse| u128::from(unused(of)) * u128::from(other.frames_len);
        share(b, a).cmp(&share(a, b)).then(a.id.cmp(&b.id))
    });
    let mut left = sum(&mut used.iter().map(|pack| unused(pack)));
    let allowed = allowance.of(decision.bytes_needed);
    let count = used.iter().take_while(|pack| {
        let wanted = left > allowed && unused(pack) > 0;
        if wanted {
            left -= unused(pack);
        }
        wanted
    });
    let count = count.count();
    let kept = used.split_off(count);
    rewrite.extend(used);
    if allowance != Allowance::Unlimited {
        for role in [Role::Content, Role::Tree] {
            let small: Vec<&PackUse> =
                kept.iter().copied().filter(|pack| pack.role == role && pack.len < pack_len / SMALL_SHARE).collect();
            if small.len() >= SMALL_COUNT_MIN {
                left -= sum(&mut small.iter().map(|pack| unused(pack)));
                rewrite.extend(small);
            }
        }
    }
    decision.packs_unused = dead.len() as u64;
    decision.bytes_unused = sum(&mut dead.iter().map(|pack| pack.len));
    decision.packs_rewritten = rewrite.len() as u64;
    decision.bytes_rewritten = sum(&mut rewrite.iter().map(|pack| pack.live_len));
    let rewritten_len = sum(&mut rewrite.iter().map(|pack| pack.len));
    decision.bytes_freed = decision.bytes_unused + rewritten_len.saturating_sub(decision.bytes_rewritten);
    decision.bytes_left = left;
    decision.drop = dead.iter().map(|pack| pack.id).collect();
    decision.rewrite = rewrite.iter().map(|pack| pack.id).collect();
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(n: u8, len: u64, live_len: u64) -> PackUse {
        let id = PackId::from_bytes([n; 32]);
        PackUse {
            id,
            role: Role::Content,
            len: len + 100,
            frames_len: len,
            live_len,
            is_precious: false,
            standing: Standing::Stays,
        }
    }

    fn numbers(ids: &[PackId]) -> Vec<u8> {
        ids.iter().map(|id| id.as_bytes()[0]).collect()
    }

    #[test]
    fn what_nobody_needs_goes_and_the_emptiest_packs_are_rewritten_until_little_is_left() {
        let packs = [pack(1, 1000, 1000), pack(2, 1000, 0), pack(3, 1000, 960), pack(4, 1000, 100), pack(5, 1000, 500)];
        let decision = decide(&packs, Allowance::Percent(5.0), 1000);
        assert_eq!((numbers(&decision.drop), numbers(&decision.rewrite)), (vec![2], vec![4, 5]));
        assert_eq!((decision.bytes_left, decision.bytes_needed), (40, 2560));
        assert_eq!(decision.bytes_freed, 1100 + 2 * 1100 - 600);
        assert_eq!(numbers(&decide(&packs, Allowance::Percent(0.0), 1000).rewrite), [4, 5, 3]);
        assert_eq!(numbers(&decide(&packs, Allowance::Bytes(600), 1000).rewrite), [4]);
        let decision = decide(&packs, Allowance::Unlimited, 1000);
        assert_eq!((numbers(&decision.drop), decision.packs_rewritten), (vec![2], 0));
        assert_eq!(decide(&[], Allowance::default(), 1000), Decision::default());
    }

    #[test]
    fn what_others_have_retired_and_is_needed_is_rewritten_in_any_case() {
        let lent = PackUse { standing: Standing::RetiredByOthers, ..pack(1, 1000, 1000) };
        let decision = decide(&[lent.clone(), pack(2, 1000, 1000)], Allowance::Unlimited, 1000);
        assert_eq!((numbers(&decision.drop), numbers(&decision.rewrite)), (vec![], vec![1]));
        let dead = PackUse { live_len: 0, ..lent };
        assert_eq!(numbers(&decide(&[dead], Allowance::Unlimited, 1000).drop), [1]);
    }

    #[test]
    fn many_small_packs_are_joined() {
        let few: Vec<PackUse> = (0..31).map(|n| pack(n, 100, 100)).collect();
        assert_eq!(decide(&few, Allowance::default(), 1 << 20).packs_rewritten, 0);
        let many: Vec<PackUse> = (0..32).map(|n| pack(n, 100, 100)).chain([pack(99, 1 << 20, 1 << 20)]).collect();
        assert_eq!(decide(&many, Allowance::default(), 1 << 20).packs_rewritten, 32);
        assert_eq!(decide(&many, Allowance::Unlimited, 1 << 20).packs_rewritten, 0);
    }

    #[test]
    fn allowances_are_read() {
        assert_eq!(Allowance::parse("5%"), Some(Allowance::Percent(5.0)));
        assert_eq!(Allowance::parse("1 MiB"), Some(Allowance::Bytes(1 << 20)));
        assert_eq!(Allowance::parse("unlimited"), Some(Allowance::Unlimited));
        assert_eq!(Allowance::parse("101%"), None);
        assert_eq!(Allowance::parse("x"), None);
    }
}
