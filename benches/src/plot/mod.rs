//! Pictures of figures, as SVG.

mod dots;
mod lines;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::Result;

pub use dots::comparison;
pub use lines::{growth, pause, targets};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(225, 228, 232);
const REST: RGBColor = RGBColor(190, 194, 200);

/// Tools that have a colour of their own (Okabe and Ito's, which most eyes can tell apart); the others are grey.
const COLOURS: [(&str, RGBColor); 9] = [
    ("form", RGBColor(213, 94, 0)),
    ("form-commit", RGBColor(150, 60, 0)),
    ("form-copy", RGBColor(240, 180, 140)),
    ("yardstick", INK),
    ("rsync-z", RGBColor(0, 114, 178)),
    ("xdelta3", RGBColor(0, 158, 115)),
    ("zstd-patch", RGBColor(204, 121, 167)),
    ("qemu-4k", RGBColor(86, 180, 233)),
    ("casync", RGBColor(240, 190, 40)),
];

fn colour_of(tool: &str) -> Option<RGBColor> {
    COLOURS.iter().find(|(name, _)| *name == tool).map(|(_, colour)| *colour)
}

fn write(root: &Area<'_>, text: &str, at: (i32, i32), size: u32, colour: RGBColor, side: HPos) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&colour).pos(Pos::new(side, VPos::Center));
    Ok(root.draw(&Text::new(text.to_owned(), at, style))?)
}
