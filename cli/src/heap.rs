//! A node lives long, and works on buffers of some MiB on threads that change. By itself glibc raises its threshold for buffers that are mapped by themselves, up to
//! 32 MiB, with each one that is freed (mallopt(3)); from then on they come out of arenas, of which each keeps what it has had once: a node came to 288 MiB, of
//! which it needed 130.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "the allocator's parameters are set by mallopt(3) alone"))]

/// From now on buffers of 1 MiB and more are mapped by themselves, and go back to the system when they are freed. Each costs page faults then: encoding by itself takes
/// 3 to 10 % longer (the best of four runs on three pairs of images), a commit not measurably. Commands, which end soon, go without.
///
/// Before the process has other threads.
pub(crate) fn give_back() {
    // SAFETY: no other thread allocates yet, which is what mallopt(3) asks for.
    #[cfg(target_env = "gnu")]
    let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) };
    #[cfg(target_env = "gnu")]
    debug_assert_eq!(set, 1);
}
