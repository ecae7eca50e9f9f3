//! The protocol of sessions and reclaiming (`format-spec/11-sessions-and-reclaiming.md`), explored to the last state
//! within bounds: writers, pruners and a reader that act one storage operation at a time in every order, die anywhere,
//! lose their sessions to others at any time, and snapshots that are forgotten at any time.
//!
//! In every state each published snapshot can be read, directly and through its bases. In every state in which nobody is
//! at work, one more pruner leaves neither garbage nor a retired list. What would happen if one of the rules were broken
//! is explored as well: a model that finds no mistake that was planted would prove nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test says what went wrong by stopping")]

mod explore;
mod frames;
mod others;
mod protocol;
mod pruner;
mod state;
mod writer;

use explore::explore;
use frames::{A, A_ON_B, B, B_ON_A, C, C_ON_B, PLAIN_A, Sight};
use protocol::{Listing, Mistake, Protocol, Task};

/// Two writers and two pruners about one chunk, which lies in two packs.
const WHOLE: Protocol = Protocol::WHOLE;
/// The same with one writer: enough for most mistakes.
const SMALL: Protocol = Protocol { writers: &[Task::Backup(A)], ..WHOLE };
/// A writer finds its chunk as a delta, left by a run that died, on a chunk that lies in two packs.
const DELTAS: Protocol =
    Protocol { packs: &[PLAIN_A, PLAIN_A, B_ON_A], writers: &[Task::Backup(B)], deltas: true, ..WHOLE };

/// Explores all of `protocol`; nothing may be wrong anywhere, and garbage must get deleted somewhere.
#[track_caller]
fn holds(protocol: &Protocol) {
    let explored = explore(protocol);
    println!("{} states, {} steps, clean in {}", explored.state_count, explored.step_count, explored.notable_count);
    if let Some(counterexample) = explored.counterexample {
        panic!("\n{counterexample}\n");
    }
    assert!(explored.notable_count > 0, "nobody ever reclaims anything");
}

/// Explores `protocol` until it goes wrong, which it must, in the way that `what` says.
#[track_caller]
fn fails(what: &str, protocol: &Protocol) {
    let explored = explore(protocol);
    println!("{} states", explored.state_count);
    let counterexample = explored.counterexample.expect("the mistake is found");
    println!("{counterexample}");
    assert!(counterexample.ends_with(what), "\n{counterexample}\n");
}

/// Explores `protocol` with a mistake until a snapshot is lost.
#[track_caller]
fn loses(mistake: Mistake, protocol: &Protocol) {
    fails(LOST, &Protocol { mistake: Some(mistake), ..*protocol });
}

const LOST: &str = "a published snapshot can't be read";
const GAVE_UP: &str = "a reader gave up on a snapshot that is there and whole";

// ---- the protocol

#[test]
fn two_writers_and_two_pruners_lose_nothing() {
    holds(&WHOLE);
}

#[test]
fn the_only_copy_is_not_lost() {
    holds(&Protocol { packs: &[PLAIN_A], ..WHOLE });
}

#[test]
fn three_pruners_lose_nothing() {
    holds(&Protocol { pruner_count: 3, ..SMALL });
}

#[test]
fn pruners_that_retire_several_packs_at_once_lose_nothing() {
    holds(&Protocol { choice_max: 2, ..SMALL });
}

#[test]
fn a_tag_beside_a_backup_loses_nothing() {
    holds(&Protocol { writers: &[Task::Tag, Task::Backup(A)], ..WHOLE });
}

#[test]
fn a_tag_looks_at_no_chunks_where_nothing_is_retired() {
    holds(&Protocol { writers: &[Task::TagUnseen], ..WHOLE });
}

#[test]
fn deltas_keep_their_bases() {
    holds(&DELTAS);
}

#[test]
fn new_deltas_keep_their_bases() {
    holds(&Protocol { packs: &[PLAIN_A, B_ON_A], snapshots: &[B], ..DELTAS });
}

#[test]
#[ignore = "13.2 million states: some minutes"]
fn two_writers_with_deltas_lose_nothing() {
    holds(&Protocol { writers: &[Task::Backup(B), Task::Backup(B)], ..DELTAS });
}

#[test]
fn chains_keep_their_bases() {
    let chain = &[PLAIN_A, B_ON_A, C_ON_B];
    holds(&Protocol { packs: chain, snapshots: &[C], writers: &[Task::Backup(C)], ..DELTAS });
}

#[test]
fn deltas_of_each_other_are_not_taken_for_copies() {
    let circle = &[PLAIN_A, B_ON_A, A_ON_B];
    holds(&Protocol { packs: circle, snapshots: &[B], writers: &[Task::Backup(A)], ..DELTAS });
}

#[test]
fn listings_that_miss_what_changes_lose_nothing() {
    holds(&Protocol { torn: true, ..SMALL });
}

#[test]
fn listings_that_miss_what_changes_keep_bases() {
    holds(&Protocol { torn: true, pruner_count: 1, ..DELTAS });
}

#[test]
fn a_reader_finds_what_was_moved_when_it_looks_again() {
    holds(&Protocol { reader: Some(1), ..SMALL });
}

#[test]
fn a_reader_finds_bases_that_were_moved_when_it_looks_again() {
    holds(&Protocol { packs: &[PLAIN_A, B_ON_A], snapshots: &[B], writers: &[], reader: Some(1), ..DELTAS });
}

/// What moved while a reader listed packs may be in neither place for it. Two listings then need two moves.
#[test]
fn a_reader_looks_once_more_than_packs_are_moved_under_it() {
    let moving = Protocol { writers: &[], torn: true, ..SMALL };
    fails(GAVE_UP, &Protocol { reader: Some(1), ..moving });
    holds(&Protocol { reader: Some(2), ..moving });
}

#[test]
fn the_judge_lists_retired_packs_before_packs_and_snapshots_anywhere() {
    use Listing::{Packs, Retired, Snapshots};
    for judge in [[Retired, Snapshots, Packs], [Retired, Packs, Snapshots], [Snapshots, Retired, Packs]] {
        holds(&Protocol { judge, ..SMALL });
    }
    for judge in [[Packs, Retired, Snapshots], [Packs, Snapshots, Retired], [Snapshots, Packs, Retired]] {
        fails(LOST, &Protocol { judge, ..SMALL });
    }
}

/// The one window: a session that others ended before the snapshot was published, and a writer that dies before it
/// looks at its session again. Sessions of the dead open no window.
#[test]
fn a_snapshot_is_safe_before_it_is_confirmed_unless_its_session_was_ended_before() {
    fails(LOST, &Protocol { promised_at_once: true, ..SMALL });
    holds(&Protocol { promised_at_once: true, rudeness: false, ..WHOLE });
}

// ---- mistakes

#[test]
fn a_session_that_is_shown_after_listing_retired_packs_is_found() {
    loses(Mistake::SessionAfterRetired, &SMALL);
}

#[test]
fn packs_that_are_listed_before_retired_packs_are_found() {
    loses(Mistake::SettledBeforeRetired, &SMALL);
}

#[test]
fn a_writer_that_counts_retired_packs_is_found() {
    loses(Mistake::RetiredCount, &SMALL);
}

#[test]
fn a_writer_that_trusts_a_snapshot_is_found() {
    loses(Mistake::TrustsSnapshot, &Protocol { writers: &[Task::Tag], ..WHOLE });
}

#[test]
fn a_writer_that_counts_deltas_on_retired_bases_is_found() {
    fails(LOST, &Protocol { writer_sight: Sight::BasesIgnored, ..DELTAS });
}

#[test]
fn a_missing_confirm_is_found() {
    loses(Mistake::NoConfirm, &SMALL);
}

#[test]
fn a_confirm_that_lists_packs_first_is_found() {
    loses(Mistake::ConfirmsPacksFirst, &SMALL);
}

#[test]
fn a_confirm_that_ignores_retired_packs_is_found() {
    loses(Mistake::ConfirmsWithoutRetired, &SMALL);
}

#[test]
fn a_session_that_comes_back_is_found() {
    loses(Mistake::Revives, &SMALL);
}

#[test]
fn sessions_that_are_listed_before_the_list_is_published_are_found() {
    loses(Mistake::SessionsBeforeList, &SMALL);
}

#[test]
fn a_pruner_that_does_not_wait_is_found() {
    loses(Mistake::NoWait, &SMALL);
}

#[test]
fn a_pruner_that_deletes_on_its_survey_is_found() {
    loses(Mistake::NoJudge, &SMALL);
}

#[test]
fn a_judge_with_the_snapshots_of_the_survey_is_found() {
    loses(Mistake::OldSnapshots, &SMALL);
}

#[test]
fn a_judge_that_trusts_copies_in_retired_packs_is_found() {
    loses(Mistake::TrustsForeignLists, &SMALL);
}

#[test]
fn a_judge_that_spares_one_copy_of_several_is_found() {
    loses(Mistake::SparesOneCopy, &Protocol { choice_max: 2, ..SMALL });
    // Nobody has to be taken for dead for that.
    loses(Mistake::SparesOneCopy, &Protocol { choice_max: 2, rudeness: false, crashes: false, ..SMALL });
}

#[test]
fn a_judge_that_does_not_follow_bases_is_found() {
    loses(Mistake::BasesNotFollowed, &DELTAS);
}

#[test]
fn a_judge_that_counts_deltas_without_their_bases_is_found() {
    fails(LOST, &Protocol { judge_sight: Sight::BasesIgnored, ..DELTAS });
}

#[test]
fn a_judge_that_ignores_depths_is_found() {
    let circle = &[PLAIN_A, B_ON_A, A_ON_B];
    let protocol =
        Protocol { packs: circle, snapshots: &[B], writers: &[], judge_sight: Sight::DepthsIgnored, ..DELTAS };
    fails(LOST, &protocol);
}

#[test]
fn a_list_that_is_released_before_its_packs_are_deleted_is_found() {
    loses(Mistake::ReleasesFirst, &SMALL);
}

#[test]
fn an_execution_of_a_foreign_list_is_found() {
    loses(Mistake::ExecutesForeignList, &Protocol { packs: &[PLAIN_A], snapshots: &[], ..SMALL });
}

#[test]
fn a_release_of_a_foreign_list_is_found() {
    loses(Mistake::ReleasesForeignLists, &SMALL);
}
