//! Tables for people: columns as wide as their widest cell, two spaces between them, no lines.
//!
//! Own code because it is small: the libraries for this draw boxes and bring a terminal driver. Invariant: cells are
//! one line and hold nothing that steers a terminal; widths count what a terminal shows, not bytes.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use crate::output::plain;

/// The widest a cell gets, in terminal columns; longer ones end in `…`.
const MAX_CELL: usize = 72;

/// What a cell means, by which it is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Normal,
    Good,
    Warning,
    Bad,
    Faint,
    Strong,
}

impl Tone {
    pub const fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Normal => style,
            Self::Good => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green))),
            Self::Warning => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow))),
            Self::Bad => style.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red))),
            Self::Faint => style.dimmed(),
            Self::Strong => style.bold(),
        }
    }
}

/// One cell.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { text: clip(&plain(text.as_ref())), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Normal)
    }
}

/// Rows under a header, or rows alone.
#[derive(Debug, Clone, Default)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Headers that end in `#` are of numbers: right-aligned, and the mark is not shown.
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Pairs of a word and a value.
    pub fn facts() -> Self {
        Self::default()
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn fact(&mut self, word: &str, value: impl Into<Cell>) {
        self.row([Cell::new(word, Tone::Faint), value.into()]);
    }

    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, without a line end at the last one.
    pub fn render(&self) -> String {
        let names: Vec<&str> = self.header.iter().map(|h| h.trim_end_matches('#')).collect();
        let columns = self.rows.iter().map(Vec::len).chain([names.len()]).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|c| {
                let cells = self.rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.text.width());
                cells.chain(names.get(c).map(|n| n.width())).max().unwrap_or(0)
            })
            .collect();
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        if !names.is_empty() {
            let header: Vec<Cell> = names.iter().map(|n| Cell::new(n, Tone::Strong)).collect();
            lines.push(self.line(&header, &widths));
        }
        lines.extend(self.rows.iter().map(|row| self.line(row, &widths)));
        lines.join("\n")
    }

    fn line(&self, cells: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        // Empty cells at the end would only leave spaces behind.
        let cells = &cells[..cells.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1)];
        for (c, cell) in cells.iter().enumerate() {
            let pad = widths[c].saturating_sub(cell.text.width());
            let right = self.header.get(c).is_some_and(|h| h.ends_with('#'));
            let last = c + 1 == cells.len();
            let style = cell.tone.style();
            let (before, after) = if right { (pad, 0) } else { (0, if last { 0 } else { pad }) };
            line.push_str(&format!("{:before$}{style}{}{style:#}{:after$}{}", "", cell.text, "", if last { "" } else { "  " }));
        }
        line
    }
}

/// At most [`MAX_CELL`] columns.
fn clip(text: &str) -> String {
    if text.width() <= MAX_CELL {
        return text.to_owned();
    }
    let mut clipped = String::new();
    for c in text.chars() {
        if clipped.width() + c.to_string().width() >= MAX_CELL {
            break;
        }
        clipped.push(c);
    }
    clipped + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(table: &Table) -> String {
        anstream::adapter::strip_str(&table.render()).to_string()
    }

    #[test]
    fn columns_line_up_by_what_a_terminal_shows() {
        let mut table = Table::new(&["NAME", "SIZE#", "DESCRIPTION"]);
        table.row(["digits".into(), "1.5KiB".into(), "hand-written".into()]);
        table.row([Cell::new("数字", Tone::Good), "12B".into(), "\u{1b}[31mred".into()]);
        insta::assert_snapshot!(shown(&table), @r"
        NAME      SIZE  DESCRIPTION
        digits  1.5KiB  hand-written
        数字       12B  �[31mred
        ");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row([Cell::new("ready", Tone::Good), "x".into()]);
        assert!(table.render().contains("\u{1b}[32mready\u{1b}[0m  x"));
    }

    #[test]
    fn facts_have_no_header_and_long_cells_are_clipped() {
        let mut table = Table::facts();
        table.fact("name", "digits");
        table.fact("description", "x".repeat(500));
        let text = shown(&table);
        assert!(text.starts_with("name         digits\n"));
        assert!(text.ends_with('…') && text.lines().all(|l| l.width() <= MAX_CELL + 13));
    }
}
