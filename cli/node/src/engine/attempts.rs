//! The attempts that this node coordinates or coordinated, by id.

use std::collections::{HashMap, VecDeque};

use form_proto::AttemptId;

use super::limits::SETTLED_ATTEMPTS_MAX;

/// Keeps what is not settled, and the last few that are: whoever asks late hears all of it. What is older is answered
/// from the store.
#[derive(Debug)]
pub(crate) struct Attempts<T> {
    by_id: HashMap<AttemptId, T>,
    settled: VecDeque<AttemptId>,
}

impl<T> Default for Attempts<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), settled: VecDeque::new() }
    }
}

impl<T: Clone> Attempts<T> {
    pub(crate) fn add(&mut self, id: AttemptId, attempt: T) {
        self.by_id.insert(id, attempt);
    }

    pub(crate) fn get(&self, id: AttemptId) -> Option<T> {
        self.by_id.get(&id).cloned()
    }

    /// Those that are not settled.
    pub(crate) fn in_flight(&self) -> Vec<T> {
        self.by_id.iter().filter(|(id, _)| !self.settled.contains(id)).map(|(_, attempt)| attempt.clone()).collect()
    }

    pub(crate) fn settled(&mut self, id: AttemptId) {
        self.settled.push_back(id);
        if self.settled.len() > SETTLED_ATTEMPTS_MAX
            && let Some(oldest) = self.settled.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_settled_ones_are_kept() {
        let mut attempts = Attempts::default();
        let id = |number: usize| AttemptId([u8::try_from(number).expect("small"); 16]);
        attempts.add(id(200), 200);
        for number in 0..SETTLED_ATTEMPTS_MAX + 3 {
            attempts.add(id(number), number);
            attempts.settled(id(number));
        }
        assert_eq!(attempts.by_id.len(), SETTLED_ATTEMPTS_MAX + 1);
        assert_eq!((attempts.get(id(2)), attempts.get(id(3))), (None, Some(3)));
        assert_eq!(attempts.get(id(200)), Some(200), "it is not settled");
        assert_eq!(attempts.in_flight(), [200]);
    }
}
