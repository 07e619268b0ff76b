//! A node lives long, and works on buffers of some MiB on threads that change. glibc keeps what each of its arenas has had once (mallopt(3)): after a few commits
//! that was more than 256 MiB which nobody used.
#![expect(unsafe_code, reason = "the allocator's parameters are set by mallopt(3) alone")]

/// Buffers from this size on are mapped by themselves.
const MAPPED_BYTES_MIN: libc::c_int = 1 << 20;

/// From now on large buffers go back to the system when they are freed. Each is mapped anew then, which takes encoding up to a tenth longer: commands, which end
/// soon, go without.
pub(crate) fn give_back() {
    // SAFETY: mallopt sets a number of the allocator, under its lock. Other allocators than glibc's do not have it.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}
