//! Places of which nobody gets all: of each kind there is a bounded number, and one token has half of
//! them at most, so that what it does in a loop leaves room for everybody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One token has at most one of so many parts of all places.
const PARTS: usize = 2;

/// Places of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    max: usize,
    /// How many each token has; none is in it with 0.
    held: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    of: Places,
    token: String,
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            held: Arc::default(),
        }
    }

    /// None where all are taken, or this token has its share.
    pub(crate) fn take(&self, token: &str) -> Option<Place> {
        let mut held = self.lock();
        let own = held.get(token).copied().unwrap_or_default();
        let all: usize = held.values().sum();
        if all >= self.max || own >= self.max.div_ceil(PARTS) {
            return None;
        }
        held.insert(token.to_owned(), own + 1);
        Some(Place {
            of: self.clone(),
            token: token.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // Nothing is left half done by a panic: each change is one call of the map.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.of.lock();
        if let Some(own) = held.get_mut(&self.token) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_has_half_of_the_places_and_several_have_all() {
        for (max, half) in [(1, 1), (2, 1), (4, 2), (5, 3), (64, 32)] {
            let places = Places::new(max);
            let take = |token| std::iter::from_fn(|| places.take(token)).collect::<Vec<_>>();
            let mine = take("a");
            assert_eq!(mine.len(), half, "of {max}");
            let others = take("b");
            assert_eq!(others.len(), max - half, "of {max}");
            assert!(places.take("c").is_none());
            drop(others);
            assert_eq!(places.take("c").is_some(), max > 1);
            drop(mine);
            assert!(places.lock().is_empty());
        }
    }
}
