//! Whether what was seen of one register has an order in time that explains it.
//!
//! The search of Wing and Gong, with the memory of Lowe: an operation may be taken next if no other one
//! that is still to be taken had ended before it began; a set of taken operations and the value they left
//! is looked at once. Nothing here knows positions: what the product says of the order is not believed.

use std::{collections::HashSet, time::Duration};

use super::history::Action;

/// States that are looked at before a register is given up as undecided. Arbitrary: a second's work.
const STATES_MAX: usize = 1_000_000;

/// One operation on the register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) begun: Duration,
    /// `None`: whether it was done is not known, and if it was, when.
    pub(super) ended: Option<Duration>,
    pub(super) action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Explained,
    /// No order explains it.
    Contradictory,
    Undecided,
}

/// The value that `action` leaves where it finds `value`; `None` where it cannot have found that.
fn after(value: u64, action: Action) -> Option<u64> {
    match action {
        Action::Read { found } => (found == value).then_some(value),
        Action::Write { value } => Some(value),
        Action::Swap { found, value: set } => (found == value).then_some(set),
    }
}

/// Whether `steps` have an order, from the value 0. Each value is written once.
pub(super) fn explained(steps: &[Step]) -> Verdict {
    Search::of(&seen_only(steps)).run()
}

/// Without those whose end is not known and whose value nobody found. An order with such a one in it is
/// one without it too: nobody who found a value comes directly behind it.
fn seen_only(steps: &[Step]) -> Vec<Step> {
    let found: HashSet<u64> = steps
        .iter()
        .filter_map(|step| match step.action {
            Action::Read { found } | Action::Swap { found, .. } => Some(found),
            Action::Write { .. } => None,
        })
        .collect();
    let is_seen = |step: &Step| match (step.ended, step.action) {
        (Some(_), _) => true,
        (None, Action::Write { value } | Action::Swap { value, .. }) => found.contains(&value),
        (None, Action::Read { .. }) => false,
    };
    steps.iter().copied().filter(is_seen).collect()
}

/// A begin or an end, in the order of time; a place in the list of those that are not taken.
#[derive(Clone, Copy, Debug)]
struct Event {
    step: usize,
    is_end: bool,
    before: usize,
    behind: usize,
}

/// Stands before the first event, and behind the last.
const NONE: usize = 0;

#[derive(Debug)]
struct Search {
    actions: Vec<Action>,
    /// From 1 on; the first one holds the two ends of the list.
    events: Vec<Event>,
    /// Where a step begins, and where it ends, if that is known.
    places: Vec<(usize, Option<usize>)>,
    taken: Vec<u64>,
    /// Known ends that are not taken yet.
    left: usize,
}

impl Search {
    fn of(steps: &[Step]) -> Self {
        let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            moments.push((step.begun, false, index));
            moments.extend(step.ended.map(|ended| (ended, true, index)));
        }
        // At one moment begins come first: such two overlap.
        moments.sort_unstable();
        let count = moments.len();
        let mut events = vec![Event {
            step: usize::MAX,
            is_end: true,
            before: count,
            behind: usize::from(count > 0),
        }];
        let mut places = vec![(NONE, None); steps.len()];
        for (index, (_, is_end, step)) in moments.into_iter().enumerate() {
            let place = index + 1;
            match is_end {
                false => places[step].0 = place,
                true => places[step].1 = Some(place),
            }
            events.push(Event {
                step,
                is_end,
                before: place - 1,
                behind: if place == count { NONE } else { place + 1 },
            });
        }
        Self {
            actions: steps.iter().map(|step| step.action).collect(),
            events,
            left: places.iter().filter(|(_, end)| end.is_some()).count(),
            places,
            taken: vec![0; steps.len().div_ceil(64)],
        }
    }

    fn run(&mut self) -> Verdict {
        let (mut value, mut path) = (0, Vec::new());
        let mut looked_at = HashSet::new();
        let mut at = self.events[NONE].behind;
        while self.left > 0 {
            let event = self.events[at];
            if !event.is_end {
                let set = after(value, self.actions[event.step]);
                self.flip(event.step);
                if let Some(set) = set
                    && looked_at.insert((self.taken.clone(), set))
                {
                    if looked_at.len() > STATES_MAX {
                        return Verdict::Undecided;
                    }
                    path.push((event.step, value));
                    value = set;
                    self.take(event.step);
                    at = self.events[NONE].behind;
                } else {
                    self.flip(event.step);
                    at = event.behind;
                }
                continue;
            }
            // Whoever ended here comes before everything behind it: something before was taken amiss.
            let Some((step, earlier)) = path.pop() else {
                return Verdict::Contradictory;
            };
            value = earlier;
            self.flip(step);
            self.give_back(step);
            at = self.events[self.places[step].0].behind;
        }
        Verdict::Explained
    }

    fn flip(&mut self, step: usize) {
        self.taken[step / 64] ^= 1 << (step % 64);
    }

    fn take(&mut self, step: usize) {
        let (begin, end) = self.places[step];
        self.unlink(begin);
        if let Some(end) = end {
            self.unlink(end);
            self.left -= 1;
        }
    }

    /// In the other order than [`Search::take`]: each finds its neighbours as it left them.
    fn give_back(&mut self, step: usize) {
        let (begin, end) = self.places[step];
        if let Some(end) = end {
            self.link(end);
            self.left += 1;
        }
        self.link(begin);
    }

    fn unlink(&mut self, place: usize) {
        let Event { before, behind, .. } = self.events[place];
        self.events[before].behind = behind;
        self.events[behind].before = before;
    }

    fn link(&mut self, place: usize) {
        let Event { before, behind, .. } = self.events[place];
        self.events[before].behind = place;
        self.events[behind].before = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn read(found: u64) -> Action {
        Action::Read { found }
    }

    const fn write(value: u64) -> Action {
        Action::Write { value }
    }

    const fn swap(found: u64, value: u64) -> Action {
        Action::Swap { found, value }
    }

    /// Steps as (begun, ended, action); an end of 0 is not known.
    fn check(steps: &[(u64, u64, Action)], expected: Verdict) {
        let steps: Vec<Step> = steps
            .iter()
            .map(|(begun, ended, action)| Step {
                begun: Duration::from_millis(*begun),
                ended: (*ended > 0).then(|| Duration::from_millis(*ended)),
                action: *action,
            })
            .collect();
        assert_eq!(explained(&steps), expected, "{steps:?}");
    }

    #[test]
    fn histories_with_an_order_are_explained() {
        for steps in [
            &[][..],
            &[(1, 2, read(0))],
            &[(1, 2, write(1)), (3, 4, read(1))],
            // They overlap: either may come first.
            &[(1, 9, write(1)), (2, 3, read(0)), (4, 5, read(1))],
            &[(1, 9, write(1)), (1, 9, write(2)), (10, 11, read(1))],
            &[(1, 9, swap(2, 3)), (2, 8, write(2)), (10, 11, read(3))],
            // Nobody knows whether it was done: it was, late.
            &[(1, 0, write(1)), (2, 3, read(0)), (4, 5, read(1))],
            // It was not.
            &[(1, 0, write(1)), (2, 3, read(0)), (4, 5, read(0))],
            &[(1, 0, swap(7, 1)), (2, 3, read(0))],
        ] {
            check(steps, Verdict::Explained);
        }
    }

    #[test]
    fn histories_without_an_order_are_contradictory() {
        for steps in [
            &[(1, 2, read(1))][..],
            // A lost write, and a stale read.
            &[(1, 2, write(1)), (3, 4, read(0))],
            &[(1, 2, write(1)), (3, 4, write(2)), (5, 6, read(1))],
            // Seen, and then not.
            &[(1, 9, write(1)), (2, 3, read(1)), (4, 5, read(0))],
            &[(1, 0, write(1)), (2, 3, read(1)), (4, 5, read(0))],
            // Two took the same value for theirs.
            &[(1, 2, write(1)), (3, 9, swap(1, 2)), (4, 8, swap(1, 3))],
            // From the future.
            &[(1, 2, read(1)), (3, 0, write(1))],
        ] {
            check(steps, Verdict::Contradictory);
        }
    }

    /// A long history by many at once is decided, and one wrong read in its middle is found.
    #[test]
    fn one_wrong_read_among_thousands_of_operations_is_found() {
        let mut steps: Vec<(u64, u64, Action)> = Vec::new();
        let mut last = 0;
        for number in 1..1500 {
            let begun = number * 10;
            // Each overlaps with the next two.
            steps.push((begun, begun + 25, swap(last, number)));
            last = number;
            if number % 3 == 0 {
                steps.push((begun + 1, begun + 24, read(number)));
            }
        }
        check(&steps, Verdict::Explained);
        let place = steps.len() / 2;
        let (begun, _, _) = steps[place];
        steps.push((begun, begun + 5, read(3)));
        check(&steps, Verdict::Contradictory);
    }
}
