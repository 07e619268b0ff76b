//! Figures that grow with something, as lines.

use std::path::Path;

use plotters::prelude::*;

use super::{Area, GRID, INK, colour_of};
use crate::{
    Result,
    results::Row,
    table::{mib_of, places_of, significant},
};

/// Some lines over one axis.
struct Chart {
    title: String,
    x: &'static str,
    y: &'static str,
    lines: Vec<Line>,
}

struct Line {
    label: String,
    colour: RGBColor,
    points: Vec<(f64, f64)>,
}

/// `growth-size.svg` and `growth-change.svg`: seconds of each step, and the largest private memory in the title.
pub fn growth(rows: &[Row], docs: &Path) -> Result<()> {
    let chart = |series: &str, title: &str, x| {
        let of = |metric| points(rows, &format!("{series}/"), metric);
        let lines = [("make", "form"), ("apply", "rsync-z"), ("compare", "yardstick")].map(|(metric, like)| {
            let label = if metric == "compare" { "compare pass".to_owned() } else { format!("form delta {metric}") };
            Line { label, colour: colour_of(like).unwrap_or(INK), points: of(metric) }
        });
        let private =
            [of("make-private"), of("apply-private")].concat().iter().map(|point| point.1).fold(0.0, f64::max);
        let title = format!("{title} (at most {} MiB of private memory)", significant(private));
        Chart { title, x, y: "seconds", lines: lines.into() }
    };
    let size = chart("size", "Image of 1 to 64 GiB, 16 MiB changed", "image, GiB");
    let change = chart("change", "1 GiB of data, changed more and more", "changed, %");
    draw(&docs.join("growth-size.svg"), &[size])?;
    draw(&docs.join("growth-change.svg"), &[change])
}

/// `growth-targets.svg`: what a commit takes, and what the source sends, with more and more targets.
pub fn targets(rows: &[Row], docs: &Path) -> Result<()> {
    let line = |metric, label: &str, like| Line {
        label: label.to_owned(),
        colour: colour_of(like).unwrap_or(INK),
        points: points(rows, "", metric),
    };
    let time = [
        line("wall", "from the command to settled", "form"),
        line("source-cpu", "CPU time of the source's node", "rsync-z"),
        line("target-cpu", "CPU time of all other nodes", "xdelta3"),
    ];
    let sent =
        [line("sent", "sent by the source's node", "form"), line("encoded", "frames of the commit", "yardstick")];
    let chart = |title: &str, y, lines| Chart { title: title.to_owned(), x: "targets", y, lines };
    let charts = [chart("Time", "seconds", time.into()), chart("Bytes", "MiB", sent.into())];
    draw(&docs.join("growth-targets.svg"), &charts)
}

/// `pause.svg`: the pause and its bound against the guest's memory, and against how much of it is rewritten all the time.
pub fn pause(rows: &[Row], docs: &Path) -> Result<()> {
    const LIKE: [&str; 5] = ["rsync-z", "qemu-4k", "xdelta3", "casync", "form"];
    let places: Vec<(f64, f64)> = places_of(rows)
        .into_iter()
        .filter_map(|place| place.split_once('/').and_then(|(ram, set)| Some((ram.parse().ok()?, set.parse().ok()?))))
        .collect();
    let figure = |(ram, set): (f64, f64), metric| {
        let name = format!("{ram}/{set}/{metric}");
        rows.iter().find(|row| row.name == name).map(|row| row.value)
    };
    let distinct = |of: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = places.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values.into_iter().zip(LIKE.into_iter().cycle()).map(|(value, like)| (value, colour_of(like).unwrap_or(INK)))
    };
    let gib = |mib: f64| mib / 1024.0;
    let mut by_ram: Vec<Line> = distinct(|place| place.1)
        .map(|(set, colour)| {
            let here = places.iter().filter(|place| place.1 == set);
            let points = here.filter_map(|place| Some((gib(place.0), figure(*place, "pause")?))).collect();
            Line { label: format!("{set} MiB rewritten all the time"), colour, points }
        })
        .collect();
    // The lowest of the bounds: there is one of each measurement, with its own compare pass.
    let bound = distinct(|place| place.0).filter_map(|(ram, _)| {
        let here = places.iter().filter(|place| place.0 == ram);
        Some((gib(ram), here.filter_map(|place| figure(*place, "bound")).reduce(f64::min)?))
    });
    by_ram.push(Line { label: "its bound".into(), colour: INK, points: bound.collect() });
    let by_set: Vec<Line> = distinct(|place| place.0)
        .map(|(ram, colour)| {
            let here = places.iter().filter(|place| place.0 == ram);
            let points = here.filter_map(|place| Some((place.1, figure(*place, "pause")?))).collect();
            Line { label: format!("{} GiB of memory", gib(ram)), colour, points }
        })
        .collect();
    let charts = [
        Chart { title: "Pause against memory".into(), x: "memory, GiB", y: "ms", lines: by_ram },
        Chart {
            title: "Pause against what is written".into(),
            x: "rewritten all the time, MiB",
            y: "ms",
            lines: by_set,
        },
    ];
    draw(&docs.join("pause.svg"), &charts)
}

/// What was measured at the places `<prefix><x>`; bytes in MiB.
fn points(rows: &[Row], prefix: &str, metric: &str) -> Vec<(f64, f64)> {
    let of_row = |row: &Row| {
        let (place, name) = row.name.rsplit_once('/')?;
        let x: f64 = place.strip_prefix(prefix)?.parse().ok()?;
        (name == metric).then_some((x, if row.unit == "bytes" { mib_of(row.value) } else { row.value }))
    };
    rows.iter().filter_map(of_row).collect()
}

/// Charts beside one another. Without a single point there is no picture.
fn draw(path: &Path, charts: &[Chart]) -> Result<()> {
    if charts.iter().flat_map(|chart| &chart.lines).all(|line| line.points.is_empty()) {
        return Ok(());
    }
    let width = if charts.len() == 1 { 800 } else { 1200 };
    let root = SVGBackend::new(path, (width, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, chart) in root.split_evenly((1, charts.len())).iter().zip(charts) {
        one(area, chart)?;
    }
    Ok(root.present()?)
}

fn one(area: &Area<'_>, chart: &Chart) -> Result<()> {
    let most =
        |of: fn(&(f64, f64)) -> f64| chart.lines.iter().flat_map(|line| &line.points).map(of).fold(0.0, f64::max);
    // Room above the lines for their names.
    let (x_most, y_most) = (most(|point| point.0), most(|point| point.1) * 1.35);
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 18).into_font().color(&INK))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..x_most, 0.0..y_most)?;
    let decimals = if y_most < 10.0 { 2 } else { 0 };
    context
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(chart.x)
        .y_desc(chart.y)
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .y_label_formatter(&|value| format!("{value:.decimals$}"))
        .x_label_formatter(&|value| format!("{}", (value * 10.0).round() / 10.0))
        .draw()?;
    for line in &chart.lines {
        let style = line.colour.stroke_width(2);
        context
            .draw_series(LineSeries::new(line.points.clone(), style).point_size(3))?
            .label(&line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font(("sans-serif", 14).into_font().color(&INK))
        .draw()?;
    Ok(())
}
