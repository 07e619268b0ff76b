//! Pictures of figures, as SVG.

use std::path::Path;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    Result,
    results::{Comparison, PairResult, Row, ToolResult},
    table::significant,
};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(225, 228, 232);
const REST: RGBColor = RGBColor(190, 194, 200);

/// Tools that have a colour of their own (Okabe and Ito's, which most eyes can tell apart); the others are grey.
const COLOURS: [(&str, RGBColor); 8] = [
    ("form", RGBColor(213, 94, 0)),
    ("form-copy", RGBColor(240, 180, 140)),
    ("yardstick", INK),
    ("rsync-z", RGBColor(0, 114, 178)),
    ("xdelta3", RGBColor(0, 158, 115)),
    ("zstd-patch", RGBColor(204, 121, 167)),
    ("qemu-4k", RGBColor(86, 180, 233)),
    ("casync", RGBColor(240, 190, 40)),
];

/// `bytes.svg` and `time.svg`: every tool on every pair, on logarithmic scales.
pub fn comparison(comparison: &Comparison, docs: &Path) -> Result<()> {
    let bytes = |tool: &ToolResult| tool.wire_bytes as f64;
    dots(&docs.join("bytes.svg"), "Bytes on the wire", "bytes", comparison, bytes)?;
    dots(&docs.join("time.svg"), "Source + target, until the image is durable", "s", comparison, ToolResult::total_s)
}

fn dots(path: &Path, title: &str, unit: &str, all: &Comparison, value: fn(&ToolResult) -> f64) -> Result<()> {
    const ROW: i32 = 44;
    const LEFT: i32 = 270;
    const WIDTH: i32 = 1000;
    const TOP: i32 = 76;
    let tools = |pair: &PairResult| -> Vec<ToolResult> {
        pair.tools.iter().filter(|tool| tool.makes_image && value(tool) > 0.0).cloned().collect()
    };
    let values: Vec<f64> = all.pairs.iter().flat_map(&tools).map(|tool| value(&tool)).collect();
    let (Some(least), Some(most)) = (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max))
    else {
        return Ok(());
    };
    let (first, last) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let height = TOP + ROW * i32::try_from(all.pairs.len())? + 46;
    let root = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    write(&root, title, (16, 22), 20, INK, HPos::Left)?;
    legend(&root, all, (LEFT, 48))?;
    let x = |value: f64| LEFT + ((value.log10() - first) / (last - first) * f64::from(WIDTH - LEFT - 40)) as i32;
    let bottom = height - 40;
    for power in first as i32..=last as i32 {
        let at = x(10f64.powi(power));
        root.draw(&PathElement::new([(at, TOP - 8), (at, bottom)], GRID))?;
        write(&root, &scale(10f64.powi(power), unit), (at, bottom + 14), 13, INK, HPos::Center)?;
    }
    for (index, pair) in all.pairs.iter().enumerate() {
        let y = TOP + ROW * i32::try_from(index)? + ROW / 2;
        write(&root, &format!("{}  {}", pair.pair, pair.title), (16, y), 14, INK, HPos::Left)?;
        root.draw(&PathElement::new([(LEFT, y), (WIDTH - 40, y)], GRID))?;
        // Ours last, so that nothing hides it.
        for tool in tools(pair).iter().rev() {
            let at = (x(value(tool)), y);
            let colour = colour_of(&tool.tool).unwrap_or(REST);
            match tool.tool.as_str() {
                "form" => root.draw(&Circle::new(at, 8, colour.filled()))?,
                "yardstick" => {
                    root.draw(&PathElement::new([(at.0, y - 12), (at.0, y + 12)], colour.stroke_width(3)))?
                }
                _ => root.draw(&Circle::new(at, 5, colour.filled()))?,
            }
        }
    }
    Ok(root.present()?)
}

fn legend(root: &Area<'_>, all: &Comparison, at: (i32, i32)) -> Result<()> {
    let ran = |name: &str| all.pairs.iter().any(|pair| pair.tool(name).is_some());
    let others =
        all.pairs.iter().flat_map(|pair| &pair.tools).any(|tool| tool.makes_image && colour_of(&tool.tool).is_none());
    let named = COLOURS.into_iter().filter(|(name, _)| ran(name)).chain(others.then_some(("others", REST)));
    let mut x = at.0;
    for (name, colour) in named {
        root.draw(&Circle::new((x, at.1), 5, colour.filled()))?;
        write(root, name, (x + 10, at.1), 14, INK, HPos::Left)?;
        x += 28 + 8 * i32::try_from(name.len())?;
    }
    Ok(())
}

fn colour_of(tool: &str) -> Option<RGBColor> {
    COLOURS.iter().find(|(name, _)| *name == tool).map(|(_, colour)| *colour)
}

fn write(root: &Area<'_>, text: &str, at: (i32, i32), size: u32, colour: RGBColor, side: HPos) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(side, VPos::Center));
    Ok(root.draw(&Text::new(text.to_owned(), at, style))?)
}

/// `1 MB`, `10 ms`.
fn scale(value: f64, unit: &str) -> String {
    let steps: &[(f64, &str)] = match unit {
        "bytes" => &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")],
        _ => &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")],
    };
    let step = steps.iter().find(|(step, _)| value >= step * 0.999).or(steps.last());
    step.map_or_else(String::new, |(step, name)| format!("{:.0} {name}", value / step))
}

/// `growth-size.svg` and `growth-change.svg`: seconds of each step, and the largest private memory in the title.
pub fn growth(rows: &[Row], docs: &Path) -> Result<()> {
    lines(&docs.join("growth-size.svg"), rows, "size", "Image of 1 to 64 GiB, 16 MiB changed", "image, GiB")?;
    lines(&docs.join("growth-change.svg"), rows, "change", "1 GiB of data, changed more and more", "changed, %")
}

fn lines(path: &Path, rows: &[Row], series: &str, title: &str, x_name: &str) -> Result<()> {
    let points = |metric: &str| -> Vec<(f64, f64)> {
        let of_row = |row: &Row| {
            let (place, name) = row.name.rsplit_once('/')?;
            let x: f64 = place.strip_prefix(series)?.strip_prefix('/')?.parse().ok()?;
            (name == metric).then_some((x, row.value))
        };
        rows.iter().filter_map(of_row).collect()
    };
    let drawn = [("make", "form"), ("apply", "rsync-z"), ("compare", "yardstick")]
        .map(|(metric, like)| (metric, colour_of(like).unwrap_or(INK), points(metric)));
    let all: Vec<(f64, f64)> = drawn.iter().flat_map(|(_, _, points)| points.clone()).collect();
    if all.is_empty() {
        return Ok(());
    }
    let most = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).fold(0.0, f64::max);
    let (x_most, y_most) = (most(|point| point.0), most(|point| point.1) * 1.1);
    let private =
        [points("make-private"), points("apply-private")].concat().iter().map(|point| point.1).fold(0.0, f64::max);
    let caption = format!("{title} (at most {} MiB of private memory)", significant(private / f64::from(1 << 20)));

    let root = SVGBackend::new(path, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 18).into_font().color(&INK))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..x_most, 0.0..y_most)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(x_name)
        .y_desc("seconds")
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .y_label_formatter(&|value| format!("{value:.2}"))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for (name, colour, points) in drawn {
        let style = colour.stroke_width(2);
        let label = if name == "compare" { "compare pass".to_owned() } else { format!("form delta {name}") };
        chart
            .draw_series(LineSeries::new(points.clone(), style).point_size(3))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font(("sans-serif", 14).into_font().color(&INK))
        .draw()?;
    Ok(root.present()?)
}
