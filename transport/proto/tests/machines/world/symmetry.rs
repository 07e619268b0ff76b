//! Targets are all alike: two worlds that differ in which is which are one state. Only a world's hash knows that; an
//! exploration takes worlds of one hash for the same.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::World;

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.now, &self.limits, self.store.shared(), self.broken, self.sent).hash(state);
        for attempt in &self.attempts {
            let coordinator = attempt.coordinator.as_ref().map(|c| (c.phase(), c.deadline()));
            let asked = &attempt.asked;
            (coordinator, attempt.confirmed, attempt.commit_sent, attempt.abort_sent).hash(state);
            (asked.capture, asked.lease, asked.reply, asked.outcome).hash(state);
        }
        let mut all: Vec<u64> = (0..self.instances.len()).map(|index| self.of(index)).collect();
        // An instance that is somebody's source is not like the others.
        if let Some(targets) = all.get_mut(1..).filter(|_| self.limits.sources.iter().all(|source| *source == 0)) {
            targets.sort_unstable();
        }
        all.hash(state);
    }
}

impl World {
    /// All that is of one instance, wherever it stands.
    fn of(&self, index: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.instances[index], self.store.current[index]).hash(&mut hasher);
        for (number, attempt) in self.attempts.iter().enumerate() {
            let member = self.member(number, index);
            let progress = attempt.coordinator.as_ref().map(|c| c.member(member));
            let acknowledged = self.store.rows[number].acknowledged & (1 << index) != 0;
            let preflight = attempt.asked.preflight & (1 << member.0) != 0;
            (attempt.wire.mask(index), progress, acknowledged, preflight).hash(&mut hasher);
        }
        hasher.finish()
    }
}
