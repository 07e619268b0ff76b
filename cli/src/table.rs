//! Columns that line up.

/// Rows of cells under a head. A column whose head begins with `>` is a column of figures: they stand at its right. A
/// cell of the last column may have several lines.
pub(crate) struct Table {
    figures: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let head: Vec<String> = head.into_iter().map(Into::into).collect();
        let figures = head.iter().map(|cell| cell.starts_with('>')).collect();
        Self { figures, rows: vec![head.iter().map(|cell| cell.trim_start_matches('>').to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.flat_map(|cell| cell.lines()).map(|line| line.chars().count()).max().unwrap_or(0)
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let widths: Vec<usize> = (0..self.figures.len()).map(|column| self.width(column)).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, width), figures) in row.iter().zip(&widths).zip(&self.figures) {
                let begin = line.chars().count();
                let cell = cell.replace('\n', &format!("\n{:begin$}", ""));
                line += &if *figures { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
            }
            if number > 0 {
                f.write_str("\n")?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn words_left_figures_right_and_lines_below_each_other() {
        let mut table = Table::new(["name", ">size", "what"]);
        table.row(["a".into(), "1".into(), "x\ny".into()]);
        table.row(["long-name".into(), "12345".into(), "z".into()]);
        let shown = "\
name        size  what
a              1  x
                  y
long-name  12345  z";
        assert_eq!(table.to_string(), shown);
    }
}
