//! A picture of which parts of a volume changed: in a terminal, or as SVG.

use std::fmt::Write as _;

use crate::text::escape;

/// What the cells of the terminal look like, from untouched to all changed.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];
/// The same as 256-colour codes: grey, then yellow to red.
const COLOURS: [u8; 5] = [240, 228, 214, 202, 196];
/// The same for SVG.
const FILLS: [&str; 5] = ["#e8e8e8", "#fde9a9", "#f9b64d", "#ef6c2b", "#c1121f"];
/// Changed parts per thousand from which each shade counts; the first is anything at all.
const STEPS: [u64; 4] = [1, 50, 250, 600];

/// Bytes changed in each of a number of equal parts of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HeatMap {
    capacity: u64,
    changed: Vec<u64>,
}

impl HeatMap {
    /// An untouched volume of `capacity` bytes in `cells` parts; at least one.
    pub(crate) fn new(capacity: u64, cells: usize) -> Self {
        Self {
            capacity,
            changed: vec![0; cells.max(1)],
        }
    }

    /// Of shares that somebody else counted: how much of each equal part changed, in thousandths.
    pub(crate) fn of_permille(shares: &[u32]) -> Self {
        let changed: Vec<u64> = shares.iter().map(|share| u64::from(*share)).collect();
        let changed: Vec<u64> = changed.into_iter().map(|share| share.min(1000)).collect();
        Self {
            capacity: 1000 * changed.len() as u64,
            changed,
        }
    }

    /// Adds a changed range; what leaves the volume is not counted.
    pub(crate) fn add(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.capacity);
        let mut at = offset;
        while at < end {
            let cell = self.cell_of(at);
            let stop = self.start_of(cell + 1).min(end);
            // Parts differ by a byte at most when the capacity is not a multiple of them.
            let Some(changed) = self.changed.get_mut(cell).filter(|_| stop > at) else {
                return;
            };
            // Ranges that overlap come from no agent of ours, but from one.
            *changed = changed.saturating_add(stop - at);
            at = stop;
        }
    }

    /// The part that holds byte `at`: the last whose start is not after it.
    fn cell_of(&self, at: u64) -> usize {
        let cells = self.changed.len();
        let guess = u128::from(at) * cells as u128 / u128::from(self.capacity.max(1));
        let mut cell = usize::try_from(guess).unwrap_or(cells).min(cells - 1);
        while cell + 1 < cells && self.start_of(cell + 1) <= at {
            cell += 1;
        }
        cell
    }

    fn start_of(&self, cell: usize) -> u64 {
        let cells = self.changed.len() as u128;
        let start = u128::from(self.capacity) * cell as u128 / cells;
        u64::try_from(start).unwrap_or(self.capacity)
    }

    /// 0 for an untouched part to 4 for one that changed nearly whole.
    pub(crate) fn shade(&self, cell: usize) -> usize {
        let size = self.start_of(cell + 1) - self.start_of(cell);
        let changed = self.changed.get(cell).copied().unwrap_or(0);
        if changed == 0 || size == 0 {
            return 0;
        }
        let thousandths = u128::from(changed) * 1000 / u128::from(size);
        // However little it is, a change shows.
        let reached = STEPS
            .iter()
            .filter(|step| thousandths >= u128::from(**step));
        reached.count().max(1)
    }

    /// Rows of `width` cells for a terminal.
    pub(crate) fn terminal(&self, width: usize, colour: bool) -> Vec<String> {
        let shades: Vec<usize> = (0..self.changed.len())
            .map(|cell| self.shade(cell))
            .collect();
        shades
            .chunks(width.max(1))
            .map(|row| paint(row, colour))
            .collect()
    }

    /// A drawing of its own, `width` cells a row, with a title and a legend.
    pub(crate) fn svg(&self, width: usize, title: &str) -> String {
        const CELL: usize = 12;
        const MARGIN: usize = 16;
        const HEAD: usize = 28;
        const FOOT: usize = 36;
        let width = width.max(1);
        let rows = self.changed.len().div_ceil(width);
        let (w, h) = (
            width * CELL + 2 * MARGIN,
            rows * CELL + 2 * MARGIN + HEAD + FOOT,
        );
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{MARGIN}\" y=\"{}\" fill=\"#222222\">{}</text>\n",
            MARGIN + 13,
            escape(title)
        );
        for cell in 0..self.changed.len() {
            let x = MARGIN + cell % width * CELL;
            let y = MARGIN + HEAD + cell / width * CELL;
            self.svg_cell(&mut svg, cell, (x, y), CELL - 1);
        }
        let y = MARGIN + HEAD + rows * CELL + 14;
        for (index, (fill, name)) in FILLS.iter().zip(LEGEND).enumerate() {
            let x = MARGIN + index * 110;
            // Writing to a String does not fail.
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"11\" height=\"11\" fill=\"{fill}\"/><text x=\"{}\" y=\"{}\" fill=\"#222222\">{name}</text>",
                x + 16,
                y + 10
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn svg_cell(&self, svg: &mut String, cell: usize, (x, y): (usize, usize), side: usize) {
        let fill = FILLS.get(self.shade(cell)).copied().unwrap_or(FILLS[0]);
        let start = self.start_of(cell);
        let changed = self.changed.get(cell).copied().unwrap_or(0);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" fill=\"{fill}\"><title>bytes {start} to {}: {changed} changed</title></rect>",
            self.start_of(cell + 1)
        );
    }
}

/// What each shade means.
pub(crate) const LEGEND: [&str; 5] = ["untouched", "a little", "5 %", "25 %", "60 % and up"];

/// The meaning of the shades, for under a map.
pub(crate) fn legend(colour: bool) -> String {
    let entry = |(shade, name): (usize, &str)| format!("{} {name}", paint(&[shade], colour));
    LEGEND
        .iter()
        .copied()
        .enumerate()
        .map(entry)
        .collect::<Vec<_>>()
        .join("   ")
}

/// One row; the colour is set where it changes only.
fn paint(row: &[usize], colour: bool) -> String {
    let mut line = String::new();
    let mut current = None;
    for shade in row {
        if colour && current != Some(shade) {
            let code = COLOURS.get(*shade).copied().unwrap_or(COLOURS[0]);
            let _ = write!(line, "\x1b[38;5;{code}m");
            current = Some(shade);
        }
        line.push(SHADES.get(*shade).copied().unwrap_or(SHADES[0]));
    }
    if colour && !row.is_empty() {
        line.push_str("\x1b[0m");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_counted_once() {
        for (capacity, cells) in [(1000, 7), (7, 10), (1 << 40, 64), (1, 1)] {
            let mut map = HeatMap::new(capacity, cells);
            map.add(0, capacity / 3);
            map.add(capacity / 3, capacity - capacity / 3);
            assert_eq!(
                map.changed.iter().sum::<u64>(),
                capacity,
                "{capacity} in {cells}"
            );
            for cell in 0..cells {
                assert_eq!(
                    map.changed[cell],
                    map.start_of(cell + 1) - map.start_of(cell)
                );
            }
        }
    }

    #[test]
    fn ranges_past_the_end_do_no_harm() {
        let mut map = HeatMap::new(100, 10);
        map.add(95, u64::MAX);
        map.add(u64::MAX, 1);
        map.add(200, 5);
        assert_eq!(map.changed.iter().sum::<u64>(), 5);
        let mut none = HeatMap::new(0, 0);
        none.add(0, 10);
        assert_eq!(none.terminal(4, false), ["·"]);
    }

    #[test]
    fn shades_grow_with_the_share() {
        let mut map = HeatMap::new(5000, 5);
        map.add(1000, 1);
        map.add(2000, 60);
        map.add(3000, 300);
        map.add(4000, 1000);
        assert_eq!(map.terminal(5, false), ["·░▒▓█"]);
        assert_eq!(map.terminal(2, false), ["·░", "▒▓", "█"]);
    }

    #[test]
    fn a_single_byte_in_a_huge_part_shows() {
        let mut map = HeatMap::new(1 << 40, 2);
        map.add(0, 1);
        assert_eq!(map.terminal(2, false), ["░·"]);
    }

    #[test]
    fn colours_end_with_a_reset_and_are_set_when_they_change() {
        let mut map = HeatMap::new(40, 4);
        map.add(20, 20);
        assert_eq!(
            map.terminal(4, true),
            ["\u{1b}[38;5;240m··\u{1b}[38;5;196m██\u{1b}[0m"]
        );
    }

    #[test]
    fn ranges_that_overlap_do_not_overflow() {
        let mut map = HeatMap::new(u64::MAX, 1);
        map.add(0, u64::MAX);
        map.add(0, u64::MAX);
        assert_eq!(map.terminal(1, false), ["█"]);
    }

    #[test]
    fn shares_of_others_are_shaded_alike() {
        let map = HeatMap::of_permille(&[0, 1, 60, 300, 1000, u32::MAX]);
        assert_eq!(map.terminal(6, false), ["·░▒▓██"]);
        assert_eq!(HeatMap::of_permille(&[]).terminal(6, false).len(), 0);
    }

    #[test]
    fn the_drawing_is_well_formed() {
        let mut map = HeatMap::new(1 << 20, 6);
        map.add(0, 4096);
        let svg = map.svg(4, "a < b & c");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b &amp; c"));
        assert_eq!(svg.matches("<title>").count(), 6);
        assert_eq!(
            svg.matches("<rect").count(),
            svg.matches("fill=\"#").count() - svg.matches("<text").count()
        );
    }
}
