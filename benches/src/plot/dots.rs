//! Every tool on every pair, as dots on a logarithmic scale.

use std::path::Path;

use plotters::{prelude::*, style::text_anchor::HPos};

use super::{Area, COLOURS, GRID, INK, REST, colour_of, write};
use crate::{
    Result,
    results::{Comparison, PairResult, ToolResult},
};

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

/// `1 MB`, `10 ms`.
fn scale(value: f64, unit: &str) -> String {
    let steps: &[(f64, &str)] = match unit {
        "bytes" => &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")],
        _ => &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")],
    };
    let step = steps.iter().find(|(step, _)| value >= step * 0.999).or(steps.last());
    step.map_or_else(String::new, |(step, name)| format!("{:.0} {name}", value / step))
}
