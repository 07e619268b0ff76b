//! How much memory this host has left for one more guest.
//!
//! The RAM of our guests is a file, shared with its process. On a disk's file system its pages are page cache, which the kernel
//! calls available: it could write them out, and the guests would stand still and read them again. So what processes have
//! mapped of files is not counted as free, here and in each control group alike.

use std::path::Path;

/// Bytes that one more process may take; `None` where the kernel does not say.
///
/// What the host has ([`MemAvailable`](https://docs.kernel.org/filesystems/proc.html)), or what a
/// [control group](https://docs.kernel.org/admin-guide/cgroup-v2.html) above us has left, if that is less.
pub(super) fn free_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    // What we map ourselves is images that are being compared: a moment later it is free.
    let own = field(&read("/proc/self/status")?, "RssFile:")?;
    let host = of_host(&read("/proc/meminfo")?, own)?;
    let group = read("/proc/self/cgroup").and_then(|text| unified(&text).map(str::to_owned));
    let groups = group.iter().flat_map(|group| Path::new(group).ancestors()).filter_map(of_group);
    Some(groups.fold(host, u64::min))
}

/// All in KiB but the answer.
fn of_host(meminfo: &str, own: u64) -> Option<u64> {
    let [available, mapped, shmem] = ["MemAvailable:", "Mapped:", "Shmem:"].map(|name| field(meminfo, name));
    // Files in memory (tmpfs) are not called available in the first place.
    let in_use = mapped?.saturating_sub(shmem?).saturating_sub(own);
    available?.saturating_sub(in_use).checked_mul(1024)
}

/// The number behind a word that begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?)
}

/// The group in the one hierarchy of version 2: `0::/system.slice/form.service`.
fn unified(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// `None` for a group without a limit.
fn of_group(group: &Path) -> Option<u64> {
    let dir = Path::new("/sys/fs/cgroup").join(group.strip_prefix("/").unwrap_or(group));
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    left(&read("memory.max")?, &read("memory.current")?, &read("memory.stat")?)
}

fn left(max: &str, current: &str, stat: &str) -> Option<u64> {
    let [max, current] = [max, current].map(|text| text.trim().parse::<u64>().ok());
    let [active, inactive, mapped, shmem] =
        ["active_file", "inactive_file", "file_mapped", "shmem"].map(|name| field(stat, name).unwrap_or(0));
    let reclaimable = active.saturating_add(inactive).saturating_sub(mapped.saturating_sub(shmem));
    Some(max?.saturating_sub(current?.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_have_mapped_is_not_free() {
        let text = "MemTotal: 24641484 kB\nMemAvailable: 20000 kB\nMapped: 9000 kB\nShmem: 500 kB\n";
        assert_eq!(of_host(text, 0), Some(11_500 << 10));
        assert_eq!(of_host(text, 1_500), Some(13_000 << 10), "our own comparing");
        assert_eq!(of_host(&text.replace("500 kB", "9500 kB"), 0), Some(20_000 << 10), "all RAM is in tmpfs");
        assert_eq!(of_host("MemFree: 1 kB", 0), None);
        let stat = "anon 100\nfile_mapped 35\nshmem 5\nactive_file 30\ninactive_file 20\n";
        assert_eq!(left("1000\n", "300\n", stat), Some(720));
        assert_eq!(left("200\n", "300\n", stat), Some(0), "more is taken than may be");
        assert_eq!(left("max\n", "300\n", stat), None);
    }

    #[test]
    fn this_kernel_s_words_are_read() {
        assert_eq!(unified("4:memory:/old\n0::/system.slice/form.service\n"), Some("/system.slice/form.service"));
        assert!(free_bytes().is_some_and(|bytes| bytes > 0));
    }
}
