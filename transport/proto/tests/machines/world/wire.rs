//! Messages under way. What was sent once may arrive at any time later, again and again, or never: loss, duplication,
//! reordering and delay in one. So each kind of message is one bit per attempt and instance.

use form_proto::{Body, Outcome, Refusal};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Offer,
    Activate,
    DecidedCommitted,
    DecidedAborted,
    Ready,
    Active,
    RefusedBusy,
    RefusedStage,
    RefusedStale,
    RefusedNotPrepared,
    RefusedActivate,
    SettledCommitted,
    SettledAborted,
}

pub(crate) const KINDS: [Kind; 13] = [
    Kind::Offer,
    Kind::Activate,
    Kind::DecidedCommitted,
    Kind::DecidedAborted,
    Kind::Ready,
    Kind::Active,
    Kind::RefusedBusy,
    Kind::RefusedStage,
    Kind::RefusedStale,
    Kind::RefusedNotPrepared,
    Kind::RefusedActivate,
    Kind::SettledCommitted,
    Kind::SettledAborted,
];

impl Kind {
    pub(crate) fn of(body: Body) -> Self {
        match body {
            Body::Offer { .. } => Self::Offer,
            Body::Activate => Self::Activate,
            Body::Decided(Outcome::Committed) => Self::DecidedCommitted,
            Body::Decided(Outcome::Aborted) => Self::DecidedAborted,
            Body::Ready => Self::Ready,
            Body::Active => Self::Active,
            Body::Refused(Refusal::Busy(_)) => Self::RefusedBusy,
            Body::Refused(Refusal::Stage) => Self::RefusedStage,
            Body::Refused(Refusal::Stale) => Self::RefusedStale,
            Body::Refused(Refusal::NotPrepared) => Self::RefusedNotPrepared,
            Body::Refused(Refusal::Activate) => Self::RefusedActivate,
            Body::Settled(Outcome::Committed) => Self::SettledCommitted,
            Body::Settled(Outcome::Aborted) => Self::SettledAborted,
        }
    }

    pub(crate) fn body(self, attempt: usize) -> Body {
        match self {
            Self::Offer => Body::Offer { commit: super::commit_id(attempt) },
            Self::Activate => Body::Activate,
            Self::DecidedCommitted => Body::Decided(Outcome::Committed),
            Self::DecidedAborted => Body::Decided(Outcome::Aborted),
            Self::Ready => Body::Ready,
            Self::Active => Body::Active,
            // Which attempt it is busy with is for people.
            Self::RefusedBusy => Body::Refused(Refusal::Busy(super::attempt_id(attempt))),
            Self::RefusedStage => Body::Refused(Refusal::Stage),
            Self::RefusedStale => Body::Refused(Refusal::Stale),
            Self::RefusedNotPrepared => Body::Refused(Refusal::NotPrepared),
            Self::RefusedActivate => Body::Refused(Refusal::Activate),
            Self::SettledCommitted => Body::Settled(Outcome::Committed),
            Self::SettledAborted => Body::Settled(Outcome::Aborted),
        }
    }

    pub(crate) fn is_for_participant(self) -> bool {
        matches!(self, Self::Offer | Self::Activate | Self::DecidedCommitted | Self::DecidedAborted)
    }
}

/// Of one attempt, by instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wire(Vec<u16>);

impl Wire {
    pub(crate) fn new(instances: usize) -> Self {
        Self(vec![0; instances])
    }

    pub(crate) fn put(&mut self, instance: usize, kind: Kind) {
        self.0[instance] |= 1 << kind as u16;
    }

    pub(crate) fn take(&mut self, instance: usize, kind: Kind) {
        self.0[instance] &= !(1 << kind as u16);
    }

    pub(crate) fn holds(&self, instance: usize, kind: Kind) -> bool {
        self.0[instance] & (1 << kind as u16) != 0
    }

    /// All that is under way to and from an instance.
    pub(crate) fn mask(&self, instance: usize) -> u16 {
        self.0[instance]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, Kind)> + '_ {
        let kinds = |mask: u16| KINDS.into_iter().filter(move |kind| mask & (1 << *kind as u16) != 0);
        self.0.iter().enumerate().flat_map(move |(instance, mask)| kinds(*mask).map(move |kind| (instance, kind)))
    }

    /// Nobody is there any more to hear what participants say.
    pub(crate) fn drop_answers(&mut self) {
        let to_participants = KINDS.into_iter().filter(|kind| kind.is_for_participant());
        let kept = to_participants.fold(0, |mask, kind| mask | 1 << kind as u16);
        self.0.iter_mut().for_each(|mask| *mask &= kept);
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }
}
