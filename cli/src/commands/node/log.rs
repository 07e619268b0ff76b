//! A node's log: when, how bad, where, what. Colours are for terminals alone.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Begins it, on stderr.
pub(super) fn begin(filter: EnvFilter) {
    // https://no-color.org
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !unwanted)
        .event_format(Line)
        .init();
}

/// One line an event.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, place) = (*event.metadata().level(), place(event.metadata().target()));
        let coloured = out.has_ansi_escapes();
        SystemTime.format_time(&mut out)?;
        if coloured {
            write!(out, " \x1b[{}m{level:>5}\x1b[0m \x1b[2m{place}:\x1b[0m ", colour(level))?;
        } else {
            write!(out, " {level:>5} {place}: ")?;
        }
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// `form_node::engine::coordinate` is `node::coordinate`; of other people's crates the name says enough.
fn place(target: &str) -> String {
    let (first, last) = (target.split("::").next().unwrap_or(target), target.rsplit("::").next().unwrap_or(target));
    match first.strip_prefix("form_") {
        Some(room) if first != last => format!("{room}::{last}"),
        Some(room) => room.to_owned(),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn places_are_short() {
        let targets =
            ["form_node::engine::coordinate", "form_transport", "form_vmm_hooks::qemu", "quinn_proto::connection", ""];
        assert_eq!(targets.map(super::place), ["node::coordinate", "transport", "vmm_hooks::qemu", "quinn_proto", ""]);
    }
}
