//! Every limit of the engine.

use std::time::Duration;

/// A device state longer than this is not one of ours (QEMU's takes about 0.5 MiB), in bytes.
pub(crate) const DEVICE_STATE_BYTES_MAX: u64 = 64 << 20;
/// All frames of an image may take this much, in bytes: what does not shrink travels as it is, and each frame has a head
/// and each recipe a few bytes.
pub(crate) const fn frames_len_bytes_max(image_len_bytes: u64) -> u64 {
    image_len_bytes.saturating_add(image_len_bytes / 16).saturating_add(1 << 20)
}
/// Blocks of each disk that a commit compares although a hint calls them unchanged; they are read during the pause.
pub(crate) const SAMPLED_BLOCKS: usize = 256;
/// Room that staging leaves free for journals, logs and everybody else, in bytes.
pub(crate) const FREE_BYTES_MIN: u64 = 64 << 20;
/// What a VM process takes beside its guest's memory, in bytes.
pub(crate) const MEMORY_BYTES_SLACK: u64 = 256 << 20;
/// Space that is kept for what is saved of an old VM beside its images, in bytes: its device state above all, which is some hundred KiB for
/// machines like ours. A longer one that finds no space refuses the commit before anything has ended.
pub(crate) const SAVED_BYTES: u64 = 8 << 20;
/// An old VM that could not be restored that often boots from its disk. The waits between tries double (`form_proto`'s retries), so that
/// these take 16 s: what is in the way for a moment, such as a package that is being replaced, is gone by then.
pub(crate) const RESTORES_MAX: u32 = 6;
/// Space that is kept for `node.db`, in bytes. A row takes two or three pages of 4 KiB in its journal, an attempt six rows, and
/// the journal begins anew at 4 MiB.
pub(crate) const BALLAST_BYTES: u64 = 8 << 20;

/// How often the warm shadows are brought up to the guest again before it is paused.
pub(crate) const WARM_ROUNDS_MAX: u32 = 4;
/// Less than this written in one such round, in bytes, is little enough for the pause: some ms.
pub(crate) const WARM_WRITTEN_BYTES_SMALL: u64 = 2 << 20;
/// A promise of space that nobody used or gave back by then is void.
pub(crate) const PROMISE_LIFE: Duration = COMMIT_TIMEOUT;

/// Standbys of each artifact: a target needs one for the verified image and one for the copy that runs.
pub(crate) const STANDBYS: usize = 2;

/// Attempts whose events stay in memory after they are settled.
pub(crate) const SETTLED_ATTEMPTS_MAX: usize = 64;

/// An attempt that has not committed by then is aborted, unless the request says otherwise.
pub(crate) const COMMIT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the cluster's lock lives without its holder.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How often the holder renews it.
pub(crate) const LEASE_RENEW: Duration = Duration::from_secs(4);
/// How much of it has to be left before anything is paused.
pub(crate) const LEASE_LEFT_MIN: Duration = Duration::from_secs(5);
/// A record that could not be written is written again after this: nothing is promised meanwhile.
pub(crate) const PERSIST_RETRY: Duration = Duration::from_secs(1);
/// How long a peer may take to answer a question.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to get the head's images ready: it encodes them in full.
pub(crate) const SEED_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a joining instance waits for a commit that is under way.
pub(crate) const JOIN_WAIT: Duration = Duration::from_secs(60);
/// How long after its entry a request to join may still be carried out: longer than the cluster's first commit and the
/// seeding may take together.
pub(crate) const JOIN_REQUEST_LIFE: Duration = Duration::from_secs(1800);
/// A seeding from which nothing was fetched for that long is over, whether or not the joining node says so.
pub(crate) const SEEDING_IDLE: Duration = Duration::from_secs(300);
/// How often it looks.
pub(crate) const JOIN_POLL: Duration = Duration::from_millis(200);
/// How often the store is asked whether an attempt from before a restart is settled.
pub(crate) const SETTLE_POLL: Duration = Duration::from_millis(200);
/// Progress in bytes is told at most this often for one target and phase; its end always is.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long open event streams may hold up the end of a node.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How long a node that was told to end finishes and undoes what it has in flight. Less than a service manager waits
/// before it kills (docs/operate.md has 60 s).
pub(crate) const ENDING_GRACE: Duration = Duration::from_secs(20);
/// How long it then waits for nodes of others to acknowledge what is decided: they carry it out without it.
pub(crate) const ENDING_ACKNOWLEDGED: Duration = Duration::from_secs(5);
/// How often it looks whether it is done.
pub(crate) const ENDING_POLL: Duration = Duration::from_millis(50);
