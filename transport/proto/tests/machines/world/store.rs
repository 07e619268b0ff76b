//! The state store as protocol.md has it: three transactions over one record per attempt.

use form_proto::{OutcomeRead, StoreReply};

/// What an instance is, or a cluster's head: 0 is what was there before, `n + 1` is the commit of attempt `n`.
pub(crate) type Version = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Pending,
    Committed,
    Aborted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) state: State,
    epoch: u64,
    parent: Version,
    membership: u8,
    /// Instances that have acknowledged, one bit each.
    pub(crate) acknowledged: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) head: Version,
    /// Its attempts, in the order in which they were begun; there is no other way to make one.
    pub(crate) rows: Vec<Row>,
    pending: Option<usize>,
    pub(crate) locked: bool,
    epoch: u64,
    membership: u8,
    /// What each instance is, as its node has told.
    pub(crate) current: Vec<Version>,
}

impl Store {
    pub(crate) fn new(instances: usize) -> Self {
        let current = vec![0; instances];
        Self { head: 0, rows: vec![], pending: None, locked: false, epoch: 0, membership: 0, current }
    }

    pub(crate) fn state(&self, attempt: usize) -> Option<State> {
        self.rows.get(attempt).map(|row| row.state)
    }

    pub(crate) fn epoch(&self, attempt: usize) -> u64 {
        self.rows[attempt].epoch
    }

    pub(crate) fn can_begin(&self, source: usize) -> bool {
        self.current[source] == self.head && (self.pending.is_none() || !self.locked)
    }

    pub(crate) fn begin(&mut self) {
        if let Some(earlier) = self.pending {
            self.rows[earlier].state = State::Aborted;
        }
        self.epoch += 1;
        self.pending = Some(self.rows.len());
        self.locked = true;
        let (epoch, parent, membership) = (self.epoch, self.head, self.membership);
        self.rows.push(Row { state: State::Pending, epoch, parent, membership, acknowledged: 0 });
    }

    pub(crate) fn commit(&mut self, attempt: usize, version: Version) -> StoreReply {
        let row = &mut self.rows[attempt];
        match row.state {
            State::Committed => return StoreReply::Applied,
            State::Aborted => return StoreReply::Refused,
            State::Pending => {}
        }
        if row.epoch != self.epoch || row.parent != self.head || row.membership != self.membership {
            return StoreReply::Refused;
        }
        row.state = State::Committed;
        self.head = version;
        self.unlock(attempt);
        StoreReply::Applied
    }

    pub(crate) fn abort(&mut self, attempt: usize, own: bool) -> StoreReply {
        let locked = self.locked && self.pending == Some(attempt);
        let row = &mut self.rows[attempt];
        match row.state {
            State::Committed => return StoreReply::Refused,
            State::Aborted => return StoreReply::Applied,
            State::Pending if locked && !own => return StoreReply::Refused,
            State::Pending => {}
        }
        row.state = State::Aborted;
        self.unlock(attempt);
        StoreReply::Applied
    }

    fn unlock(&mut self, attempt: usize) {
        if self.pending == Some(attempt) {
            self.pending = None;
            self.locked = false;
        }
    }

    /// A write was taken and the lease is long enough.
    pub(crate) fn holds_lock(&self, attempt: usize) -> bool {
        self.locked && self.pending == Some(attempt)
    }

    pub(crate) fn read(&self, attempt: usize) -> OutcomeRead {
        match self.state(attempt) {
            Some(State::Pending) => OutcomeRead::Pending,
            Some(State::Committed) => OutcomeRead::Committed,
            Some(State::Aborted) | None => OutcomeRead::Aborted,
        }
    }

    pub(crate) fn acknowledge(&mut self, attempt: usize, instance: usize) {
        let row = &mut self.rows[attempt];
        if row.state != State::Pending {
            row.acknowledged |= 1 << instance;
        }
    }

    /// All of it that is of no one instance.
    pub(crate) fn shared(&self) -> impl std::hash::Hash + '_ {
        let rows: Vec<_> = self.rows.iter().map(|r| (r.state, r.epoch, r.parent, r.membership)).collect();
        (self.head, rows, self.pending, self.locked, self.epoch, self.membership)
    }

    /// False: refused, an attempt is alive.
    pub(crate) fn delete(&mut self) -> bool {
        let free = self.pending.is_none() || !self.locked;
        if free {
            self.membership += 1;
        }
        free
    }
}
