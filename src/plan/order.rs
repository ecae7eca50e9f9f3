//! In which order components are captured and restored. Pure.
//!
//! - **Capture**: a component before what it references. The database first, then the bucket it points into: whatever
//!   the captured database refers to is then in the captured bucket, which can only have grown.
//! - **Restore**: the other way round, and what is derived after what it is derived from.
//!
//! Where neither says anything, the order of the plan holds: the next is always the first in the plan that may go.

/// What the order depends on, of one component.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// Its name; no two are equal.
    pub name: &'a str,
    /// Names of those it refers to.
    pub references: &'a [String],
    /// Names of those it is derived from.
    pub derived_from: &'a [String],
}

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Component `from` (its place) names one that doesn't exist, under this key.
    Unknown {
        /// Place of the component.
        from: usize,
        /// `references` or `derived_from`.
        key: &'static str,
        /// The name that nobody has.
        name: String,
    },
    /// These components (their places) depend on each other in a ring; each on the one after it, the last on the first.
    Cycle(Vec<usize>),
}

/// Capture order, and the groups of the restore order: places in `links`.
pub type Orders = (Vec<usize>, Vec<Vec<usize>>);

/// Both orders.
///
/// # Errors
/// When a name is unknown, or components depend on each other in a ring.
pub fn both(links: &[Link<'_>]) -> Result<Orders, Fault> {
    let references = places(links, "references", |link| link.references)?;
    let sources = places(links, "derived_from", |link| link.derived_from)?;
    let needs: Vec<Vec<usize>> =
        references.iter().zip(&sources).map(|(one, other)| [&one[..], other].concat()).collect();
    if let Some(cycle) = find_cycle(&needs) {
        return Err(Fault::Cycle(cycle));
    }
    Ok((capture_order(&references), restore_groups(&needs)))
}

fn places<'a>(
    links: &[Link<'a>],
    key: &'static str,
    names: impl Fn(&Link<'a>) -> &'a [String],
) -> Result<Vec<Vec<usize>>, Fault> {
    let place_of = |from: usize, name: &String| {
        let place = links.iter().position(|link| link.name == name);
        place.ok_or_else(|| Fault::Unknown { from, key, name: name.clone() })
    };
    let row = |(from, link)| names(link).iter().map(|name| place_of(from, name)).collect();
    links.iter().enumerate().map(row).collect()
}

/// Always the first that nobody who is still to come references.
fn capture_order(references: &[Vec<usize>]) -> Vec<usize> {
    let mut waiting: Vec<usize> = (0..references.len()).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(at) =
        waiting.iter().position(|place| !waiting.iter().any(|other| references[*other].contains(place)))
    {
        order.push(waiting.remove(at));
    }
    order
}

/// Each group holds those that need only earlier groups.
fn restore_groups(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut waiting: Vec<usize> = (0..needs.len()).collect();
    let mut groups = Vec::new();
    while !waiting.is_empty() {
        let (held, ready): (Vec<usize>, Vec<usize>) =
            waiting.iter().partition(|place| needs[**place].iter().any(|need| waiting.contains(need)));
        if ready.is_empty() {
            break;
        }
        groups.push(ready);
        waiting = held;
    }
    groups
}

/// A ring of needs, if there is one: the one that begins with the smallest place.
fn find_cycle(needs: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut state = vec![State::New; needs.len()];
    (0..needs.len()).find_map(|place| visit(place, needs, &mut state))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    OnPath,
    Done,
}

/// Depth-first from `start`, without recursion: plans come from people, but text from anywhere.
fn visit(start: usize, needs: &[Vec<usize>], state: &mut [State]) -> Option<Vec<usize>> {
    let mut path: Vec<(usize, usize)> = Vec::new();
    if state[start] == State::New {
        state[start] = State::OnPath;
        path.push((start, 0));
    }
    while let Some((place, next)) = path.last_mut() {
        match needs[*place].get(*next) {
            None => {
                state[*place] = State::Done;
                path.pop();
            }
            Some(&need) => {
                *next += 1;
                match state[need] {
                    State::New => {
                        state[need] = State::OnPath;
                        path.push((need, 0));
                    }
                    State::OnPath => {
                        return Some(path.iter().map(|(place, _)| *place).skip_while(|place| *place != need).collect());
                    }
                    State::Done => {}
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Name, references, what it is derived from.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

    fn orders(rows: &[Row<'_>]) -> Result<Orders, Fault> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let rows: Vec<_> = rows.iter().map(|(name, one, other)| (*name, owned(one), owned(other))).collect();
        let links: Vec<_> =
            rows.iter().map(|(name, references, derived_from)| Link { name, references, derived_from }).collect();
        both(&links)
    }

    #[test]
    fn without_references_the_order_of_the_plan_holds_and_all_restore_at_once() {
        assert_eq!(orders(&[("c", &[], &[]), ("a", &[], &[])]), Ok((vec![0, 1], vec![vec![0, 1]])));
    }

    #[test]
    fn what_is_referenced_is_captured_later_and_restored_earlier() {
        let rows: &[Row<'_>] = &[("bucket", &[], &[]), ("other", &[], &[]), ("database", &["bucket"], &[])];
        assert_eq!(orders(rows), Ok((vec![1, 2, 0], vec![vec![0, 1], vec![2]])));
    }

    #[test]
    fn what_is_derived_is_restored_after_its_source_and_captured_where_it_stands() {
        let rows: &[Row<'_>] = &[("search", &[], &["database"]), ("database", &["bucket"], &[]), ("bucket", &[], &[])];
        assert_eq!(orders(rows), Ok((vec![0, 1, 2], vec![vec![2], vec![1], vec![0]])));
    }

    #[test]
    fn a_ring_is_found_wherever_it_begins() {
        let rows: &[Row<'_>] = &[("a", &["b"], &[]), ("b", &["c"], &[]), ("c", &["d"], &[]), ("d", &[], &["b"])];
        assert_eq!(orders(rows), Err(Fault::Cycle(vec![1, 2, 3])));
        assert_eq!(orders(&[("a", &["a"], &[])]), Err(Fault::Cycle(vec![0])));
    }

    #[test]
    fn a_name_that_nobody_has_is_found() {
        let fault = Fault::Unknown { from: 1, key: "derived_from", name: "x".into() };
        assert_eq!(orders(&[("a", &[], &[]), ("b", &["a"], &["x"])]), Err(fault));
    }

    /// Random graphs without rings: an edge goes from a later number to an earlier one, then places are shuffled.
    fn graphs() -> impl Strategy<Value = Vec<(String, Vec<String>, Vec<String>)>> {
        (1usize..12)
            .prop_flat_map(|n| {
                let edges = proptest::collection::vec((0..n, 0..n, any::<bool>()), 0..n * 2);
                (Just(n), edges, Just((0..n).collect::<Vec<_>>()).prop_shuffle())
            })
            .prop_map(|(n, edges, shuffled)| {
                let row = |i: usize, kind: bool| {
                    edges
                        .iter()
                        .filter(|(from, to, is)| *from == i && to < from && *is == kind)
                        .map(|(_, to, _)| format!("n{to}"))
                        .collect()
                };
                assert_eq!(shuffled.len(), n);
                shuffled.into_iter().map(|i| (format!("n{i}"), row(i, true), row(i, false))).collect()
            })
    }

    fn links(rows: &[(String, Vec<String>, Vec<String>)]) -> Vec<Link<'_>> {
        rows.iter().map(|(name, references, derived_from)| Link { name, references, derived_from }).collect()
    }

    proptest! {
        #[test]
        fn every_graph_without_rings_has_orders_that_keep_every_edge(rows in graphs()) {
            let links = links(&rows);
            let (capture, groups) = both(&links).unwrap();
            let captured = |name: &String| capture.iter().position(|place| links[*place].name == name).unwrap();
            let restored =
                |name: &String| groups.iter().position(|group| group.iter().any(|place| links[*place].name == name)).unwrap();
            prop_assert_eq!(capture.len(), rows.len());
            prop_assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), rows.len());
            for (name, references, derived_from) in &rows {
                for other in references {
                    prop_assert!(captured(name) < captured(other));
                    prop_assert!(restored(name) > restored(other));
                }
                for other in derived_from {
                    prop_assert!(restored(name) > restored(other));
                }
            }
        }

        #[test]
        fn any_graph_has_either_orders_or_a_ring_that_is_one(
            edges in proptest::collection::vec((0usize..8, 0usize..8), 0..20),
        ) {
            let row = |i: usize| (format!("n{i}"), edges.iter().filter(|(from, _)| *from == i).map(|(_, to)| format!("n{to}")).collect::<Vec<_>>(), Vec::new());
            let rows: Vec<_> = (0..8).map(row).collect();
            match both(&links(&rows)) {
                Ok((capture, _)) => prop_assert_eq!(capture.len(), 8),
                Err(Fault::Cycle(ring)) => {
                    for (at, place) in ring.iter().enumerate() {
                        let next = format!("n{}", ring[(at + 1) % ring.len()]);
                        prop_assert!(rows[*place].1.contains(&next));
                    }
                }
                Err(fault) => prop_assert!(false, "{:?}", fault),
            }
        }
    }
}
