//! An attempt that this node coordinates: what its effects share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use form_proto::{AttemptId, Member};
use form_transport::{NodeId, PeerAddr, SocketBytes};

use super::again::Again;
use super::capture::Capture;
use super::events::EventLog;
use super::hints::Hints;
use super::peer::Fit;
use crate::api::types::{CommitSummary, TargetSummary};
use crate::auth::{Address, SignedRequest};
use crate::error::ApiError;
use crate::store::AttemptRecord;

/// A participant as the coordinator knows it.
#[derive(Clone, Debug)]
pub(crate) struct MemberInfo {
    pub(crate) instance_id: String,
    pub(crate) name: String,
    pub(crate) peer: PeerAddr,
}

/// The way to one participant.
#[derive(Default)]
struct Line {
    /// A message is on its way.
    busy: AtomicBool,
    failures: Again,
}

/// One attempt.
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) record: AttemptRecord,
    /// The source is the first.
    pub(crate) members: Vec<MemberInfo>,
    pub(crate) signer: Address,
    pub(crate) request: SignedRequest,
    pub(crate) body: Vec<u8>,
    pub(crate) description: String,
    pub(crate) timeout: Duration,
    pub(crate) events: EventLog,
    pub(crate) capture: OnceLock<Capture>,
    /// Set when the capture begins to record.
    pub(crate) hints: OnceLock<Hints>,
    /// What they recorded has been given its end.
    pub(crate) hints_settled: AtomicBool,
    /// Held while the source is captured: what a capture makes can be removed only when it has ended.
    pub(crate) capturing: tokio::sync::Mutex<()>,
    /// The outcome is known.
    pub(crate) decided: AtomicBool,
    /// Failures of the store at the commit point.
    pub(crate) unanswered: Again,
    lines: Vec<Line>,
    fits: Mutex<HashMap<Member, Fit>>,
    summary: Mutex<CommitSummary>,
    phase: Mutex<Option<(String, Instant)>>,
    before: HashMap<NodeId, SocketBytes>,
}

impl Attempt {
    pub(crate) fn new(
        id: AttemptId,
        record: AttemptRecord,
        members: Vec<MemberInfo>,
        (signer, request, body): (Address, SignedRequest, Vec<u8>),
        description: String,
        timeout: Duration,
        socket_bytes: impl Fn(NodeId) -> SocketBytes,
    ) -> Self {
        let before = members.iter().map(|m| (m.peer.id, socket_bytes(m.peer.id))).collect();
        let targets = members.iter().skip(1);
        let summary = CommitSummary {
            parent: record.parent.clone(),
            source: members.first().map(|m| m.name.clone()).unwrap_or_default(),
            targets: targets
                .map(|m| TargetSummary {
                    instance: m.name.clone(),
                    node_id: m.peer.id.to_string(),
                    ..TargetSummary::default()
                })
                .collect(),
            ..CommitSummary::default()
        };
        let lines = members.iter().map(|_| Line::default()).collect();
        Self {
            id,
            record,
            members,
            signer,
            request,
            body,
            description,
            timeout,
            events: EventLog::new(),
            capture: OnceLock::new(),
            hints: OnceLock::new(),
            hints_settled: AtomicBool::new(false),
            capturing: tokio::sync::Mutex::default(),
            decided: AtomicBool::new(false),
            unanswered: Again::default(),
            lines,
            fits: Mutex::default(),
            summary: Mutex::new(summary),
            phase: Mutex::default(),
            before,
        }
    }

    pub(crate) fn hex(&self) -> &str {
        &self.record.attempt_id
    }

    pub(crate) fn member(&self, member: Member) -> Option<&MemberInfo> {
        self.members.get(usize::from(member.0))
    }

    pub(crate) fn member_of(&self, instance: &str) -> Option<Member> {
        let index = self.members.iter().position(|m| m.instance_id == instance)?;
        u16::try_from(index).ok().map(Member)
    }

    /// Sends to one participant what is repeated until it is answered: nothing while an earlier message is still on
    /// its way, so that a participant that can't be reached does not gather a crowd of them. `None`: not sent.
    pub(crate) async fn one_at_a_time<T>(&self, member: Member, send: impl Future<Output = T>) -> Option<T> {
        let line = self.lines.get(usize::from(member.0))?;
        if line.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let sent = send.await;
        line.busy.store(false, Ordering::Release);
        Some(sent)
    }

    pub(crate) fn reached(&self, member: Member) {
        if let Some(line) = self.lines.get(usize::from(member.0)) {
            line.failures.over();
        }
    }

    /// A participant could not be reached. True when it is worth a line in the log.
    pub(crate) fn unreached(&self, member: Member) -> bool {
        self.lines.get(usize::from(member.0)).is_some_and(|line| line.failures.worth_a_line())
    }

    pub(crate) fn fits(&self) -> MutexGuard<'_, HashMap<Member, Fit>> {
        self.fits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn summary(&self) -> MutexGuard<'_, CommitSummary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It fails because of one participant: the error names that.
    pub(crate) fn failed_at(&self, member: Member, mut error: ApiError) {
        if let Some(MemberInfo { name, .. }) = self.member(member) {
            let in_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !error.message.split(|c| !in_name(c)).any(|word| word == name) {
                let role = if member == Member::SOURCE { "source" } else { "target" };
                error.message = format!("{role} {name}: {}", error.message);
            }
        }
        self.events.failed(error);
    }

    /// A phase of the whole attempt begins; the one before ends.
    pub(crate) fn enter(&self, phase: &str) {
        self.leave();
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some((phase.to_owned(), Instant::now()));
        self.events.phase(None, phase);
    }

    /// The running phase, and for how long it has been.
    pub(crate) fn phase_now(&self) -> Option<(String, Duration)> {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        phase.as_ref().map(|(phase, since)| (phase.clone(), since.elapsed()))
    }

    /// Adds the running phase's time to the summary.
    pub(crate) fn leave(&self) {
        let left = self.phase.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((phase, since)) = left {
            add_ms(&mut self.summary().phases_ms, &phase, since);
        }
    }

    /// What the socket sent to each target's node since the attempt began, into the summary.
    pub(crate) fn count_socket(&self, now: impl Fn(NodeId) -> SocketBytes) {
        let mut summary = self.summary();
        for (target, member) in summary.targets.iter_mut().zip(self.members.iter().skip(1)) {
            let (now, before) = (now(member.peer.id), self.before.get(&member.peer.id).copied().unwrap_or_default());
            target.sent_bytes = now.sent.saturating_sub(before.sent);
            target.sent_datagrams = now.datagrams_sent.saturating_sub(before.datagrams_sent);
        }
    }
}

/// Adds the time since `since` to a phase.
pub(crate) fn add_ms(phases: &mut BTreeMap<String, u64>, phase: &str, since: Instant) {
    *phases.entry(phase.to_owned()).or_default() += u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
}
