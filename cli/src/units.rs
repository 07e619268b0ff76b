//! Figures as people read them.

/// `17 B`, `1.5 KiB`, `12.3 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // 1023.95 would be shown as 1024.0 of the smaller unit.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// For a column of figures: units stand below units.
pub(crate) fn in_column(figure: String) -> String {
    // The longest units of bytes and of time.
    let longest = if figure.ends_with('B') { "KiB" } else { "ms" };
    let unit = figure.rsplit(' ').next().map_or(0, |unit| unit.chars().count());
    format!("{figure}{:1$}", "", longest.len().saturating_sub(unit))
}

/// `640 µs`, `84.1 ms`, `4.20 s`.
pub(crate) fn duration_ns(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// The same for milliseconds.
pub(crate) fn duration_ms(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.2} s", ms as f64 / 1e3) }
}

/// `1.3 %`, or `-` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.2} %", part as f64 * 100.0 / whole as f64) }
}

/// The first digits of an id, by which people compare them.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// `2026-11-23 08:25:09 UTC` of Unix time in milliseconds.
pub(crate) fn utc(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Years that begin in March, in eras of 400 of them: Howard Hinnant's civil_from_days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + later;
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1].map(bytes).join(" "),
            "0 B 1023 B 1.0 KiB 1.5 KiB 1.0 MiB 1.0 MiB"
        );
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        assert_eq!([999, 640_000, 84_100_000, 4_200_000_000].map(duration_ns).join(" "), "0 µs 640 µs 84.1 ms 4.20 s");
        assert_eq!([12, 1234].map(duration_ms).join(" "), "12 ms 1.23 s");
        assert_eq!(
            [bytes(7), bytes(7 << 20), duration_ms(7), duration_ms(7000)].map(in_column),
            ["7 B  ", "7.0 MiB", "7 ms", "7.00 s "]
        );
        // From `date -u -d @…`.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_868_799, "2000-02-29 23:59:59 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_795_422_309, "2026-11-23 08:25:09 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1000 + 999), text);
        }
        assert_eq!((percent(13, 1000), percent(1, 0)), ("1.30 %".into(), "-".into()));
    }
}
