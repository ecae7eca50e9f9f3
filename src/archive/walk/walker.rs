//! Walking: directories in depth-first order, made into units of work.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::scout::{Found, Listed, Place, Scout, Visit, Visited};
use super::selection::Selection;
use super::{Step, UNIT_LEN};
use crate::archive::entry::{Entry, Metadata};
use crate::archive::posix::{self, Inspected};
use crate::error::Error;
use crate::pipeline::{Ahead, Task};

/// Steps that one worker takes at once.
const UNIT_COUNT: usize = 256;
/// Directories side by side that are looked at ahead of need.
const AHEAD_COUNT: usize = 8;

/// Makes steps, in depth-first order.
pub(super) struct Walker<'w> {
    scout: &'w Scout<'w>,
    ahead: &'w Ahead<'w, Visit, Visited>,
    /// False: nobody listens any more.
    emit: &'w dyn Fn(Vec<Step>) -> bool,
    unit: RefCell<Unit>,
}

/// Steps that go to a worker together.
#[derive(Default)]
struct Unit {
    steps: Vec<Step>,
    len: u64,
}

impl<'w> Walker<'w> {
    pub fn new(
        scout: &'w Scout<'w>,
        ahead: &'w Ahead<'w, Visit, Visited>,
        emit: &'w dyn Fn(Vec<Step>) -> bool,
    ) -> Self {
        Self { scout, ahead, emit, unit: RefCell::default() }
    }

    pub fn walk(&self, selection: &Selection, old: Option<&Entry>) {
        let root = PathBuf::from("/");
        let _listening = match posix::open_directory(&root) {
            Ok(directory) => {
                let place = self.scout.place(directory, root, old, None);
                self.selected(Vec::new(), place, old, selection)
            }
            Err(cause) => self.push(Step::Failed(Error::io("The root directory can't be opened", cause))),
        } && self.flush();
    }

    /// False: nobody listens any more.
    fn push(&self, step: Step) -> bool {
        let mut unit = self.unit.borrow_mut();
        unit.len += match &step {
            Step::Read(read) => read.inspected.kind_len(),
            _ => 0,
        };
        unit.steps.push(step);
        let is_full = unit.steps.len() >= UNIT_COUNT || unit.len >= UNIT_LEN as u64;
        drop(unit);
        !is_full || self.flush()
    }

    fn flush(&self) -> bool {
        let unit = self.unit.take();
        (self.emit)(unit.steps)
    }

    fn push_all(&self, steps: Vec<Step>) -> bool {
        steps.into_iter().all(|step| self.push(step))
    }

    /// Only the names that lead to what is selected. `old`: what the parent has of the directory.
    fn selected(&self, name: Vec<u8>, place: Place, old: Option<&Entry>, selection: &Selection) -> bool {
        if selection.selected {
            let found = self.scout.all(&place);
            return self.all(name, place, found);
        }
        let Place { directory, path, inspected, tree, device } = place;
        let inspected = inspected.map(|inspected| as_it_was(inspected, old));
        let enter = Step::Enter { name, inspected: Box::new(inspected), tree: tree.clone() };
        let place = Place { directory, path, inspected: Err(std::io::ErrorKind::Other.into()), tree, device };
        self.push(enter)
            && selection.below.iter().all(|(name, below)| self.towards(&place, name, below))
            && self.push(Step::Leave)
    }

    fn towards(&self, place: &Place, name: &OsString, below: &Selection) -> bool {
        let path = place.path.join(name);
        // A way to the selection may lead over symbolic links; what is selected itself is taken as it is.
        let is_directory =
            if below.selected { path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) } else { true };
        if !is_directory {
            let found = self.scout.names(place, vec![Listed::of(name)]);
            return self.push_found(found.same, found.steps);
        }
        match posix::open_directory(&path) {
            Ok(directory) => {
                let wanted = self.scout.source.one_file_system && below.selected;
                let device = wanted.then(|| posix::state_of(&directory).ok().map(|state| state.device)).flatten();
                let old = place.tree.as_deref().and_then(|tree| tree.get(name.as_bytes()));
                let place = self.scout.place(directory, path, old, device);
                self.selected(name.as_bytes().to_vec(), place, old, below)
            }
            Err(cause) => {
                let what = format!("Directory {} can't be opened", path.display());
                self.push(Step::Failed(Error::io(what, cause)))
            }
        }
    }

    fn push_found(&self, same: Vec<usize>, steps: Vec<Step>) -> bool {
        (same.is_empty() || self.push(Step::Same(same))) && self.push_all(steps)
    }

    fn all(&self, name: Vec<u8>, place: Place, found: Found) -> bool {
        let Place { directory, path, inspected, tree, device } = place;
        let Found { same, steps, directories } = found;
        let visit = |name: OsString| {
            let path = path.join(&name);
            Visit { above: directory.clone(), name, path, tree: tree.clone(), device }
        };
        self.push(Step::Enter { name, inspected: Box::new(inspected), tree: tree.clone() })
            && self.push_found(same, steps)
            && self.below(directories.into_iter().map(visit))
            && self.push(Step::Leave)
    }

    /// Directories side by side, the next ones being looked at while one is walked.
    fn below(&self, visits: impl Iterator<Item = Visit>) -> bool {
        let mut visits = visits.map(|visit| (visit.name.clone(), Task::new(visit)));
        let mut window: VecDeque<(OsString, Task<Visit, Visited>)> = VecDeque::new();
        loop {
            window.extend(visits.by_ref().take(AHEAD_COUNT - window.len()));
            for (_, task) in &mut window {
                self.ahead.begin(task);
            }
            let Some((name, task)) = window.pop_front() else { return true };
            let listening = match self.ahead.finish(task) {
                Some(Visited::Found(place, found)) => self.all(name.into_vec(), *place, found),
                Some(Visited::Problem(problem)) => self.push(Step::Problem(problem)),
                Some(Visited::Vanished) => true,
                // A panic; it goes on from where the thread is joined.
                None => false,
            };
            if !listening {
                return false;
            }
        }
    }
}

/// A directory on the way to what is selected. Its times and links tell of names that nobody asked for, which come and go: if
/// nothing else of it is different, it is taken for what it was, or every night had new trees of all directories above.
fn as_it_was(mut inspected: Inspected, old: Option<&Entry>) -> Inspected {
    let Some(old) = old.map(|old| &old.metadata) else { return inspected };
    let found = inspected.metadata.clone();
    let steady = Metadata { mtime: old.mtime, ctime: old.ctime, link_count: old.link_count, ..found };
    if steady == *old {
        inspected.metadata = steady;
    }
    inspected
}
