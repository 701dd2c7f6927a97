//! Growth and change of a repository as SVG: one file, no scripts, for light and dark screens.
//!
//! From above: the sums, a bar for each recovery point by how much it made the repository grow, a
//! heat map for each volume or image with a row for each of its points, and what the shades mean.

use std::fmt::Write as _;

use tidemark_proto::v1::{PointStats, RecoveryPoint, StatsResult};

use super::stats::{by_origin, growth};
use crate::{
    cmd::{outcome, points::made_at},
    heatmap::{HeatMap, LEGEND},
    text::escape,
    units,
};

const WIDTH: u64 = 960;
/// Where plots begin: left of it are the labels.
const LEFT: u64 = 170;
/// Of plots.
const PLOT_WIDTH: u64 = 760;
const CHART_HEIGHT: u64 = 180;
const MAX_BAR_WIDTH: u64 = 40;
/// Of a row of a heat map.
const ROW_HEIGHT: u64 = 16;
/// A chart has fewer lines than this.
const MAX_GRID_LINES: u64 = 6;

/// Classes h0 to h4 are the shades of [`HeatMap::shade`].
const STYLE: &str = "\
.page{fill:#ffffff}text{fill:#24292f;font:12px sans-serif}.title{font-size:16px;font-weight:bold}
.head{font-weight:bold}.grid{stroke:#d0d7de}.axis{stroke:#6e7781}.bar{fill:#0969da}
.h0{fill:#eaeef2}.h1{fill:#fde9a9}.h2{fill:#f9b64d}.h3{fill:#ef6c2b}.h4{fill:#c1121f}
@media (prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}.grid{stroke:#30363d}
.axis{stroke:#8b949e}.bar{fill:#58a6ff}
.h0{fill:#21262d}.h1{fill:#5c4a12}.h2{fill:#9a6a12}.h3{fill:#e0662a}.h4{fill:#ff5c5c}}";

/// Draws a repository.
pub(super) fn draw(name: &str, stats: &StatsResult) -> String {
    let mut page = Page {
        body: String::new(),
        y: 16,
    };
    page.y += 12;
    let title = format!("Repository {name}");
    page.text(16, "title", "start", &title);
    for line in outcome::stats(stats) {
        page.y += 18;
        page.text(16, "", "start", &line);
    }
    let points: Vec<&RecoveryPoint> = stats
        .points
        .iter()
        .filter_map(|stats| stats.point.as_ref())
        .collect();
    page.chart(&points);
    for ((name, host), points) in by_origin(stats) {
        page.heat_map(&format!("{name} on {host}: where it changed"), &points);
    }
    page.legend();
    page.finish()
}

struct Page {
    body: String,
    /// Where the next thing goes.
    y: u64,
}

impl Page {
    /// Adds a line; writing to a String does not fail.
    fn put(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.body, "{line}");
    }

    fn text(&mut self, x: u64, class: &str, anchor: &str, text: &str) {
        let (y, text) = (self.y, escape(text));
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{y}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn line(&mut self, class: &str, (x1, y1): (u64, u64), (x2, y2): (u64, u64)) {
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"
        ));
    }

    /// A bar for each point.
    fn chart(&mut self, points: &[&RecoveryPoint]) {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return;
        };
        self.y += 36;
        self.text(
            16,
            "head",
            "start",
            "Growth: bytes stored by each recovery point",
        );
        let top = self.y + 16;
        let bottom = top + CHART_HEIGHT;
        let most = points.iter().map(|point| growth(point)).max().unwrap_or(0);
        let step = grid_step(most);
        let full = most.div_ceil(step).max(1).saturating_mul(step);
        let height = |bytes: u64| share(bytes, full, CHART_HEIGHT * 10);
        for mark in 0..=full / step {
            let bytes = mark * step;
            let y = bottom - height(bytes) / 10;
            self.line("grid", (LEFT, y), (LEFT + PLOT_WIDTH, y));
            self.y = y + 4;
            self.text(LEFT - 8, "", "end", &units::bytes(bytes));
        }
        let count = points.len() as u64;
        for (index, point) in (0..).zip(points) {
            let x = share(index, count, PLOT_WIDTH * 10);
            let next = share(index + 1, count, PLOT_WIDTH * 10);
            // A fifth is air, as long as bars are not hairs; and few points do not make walls.
            let width = ((next - x) * 4 / 5).clamp(1, MAX_BAR_WIDTH * 10);
            let x = LEFT * 10 + x + (next - x).saturating_sub(width) / 2;
            let tall = height(growth(point));
            self.put(format_args!(
                "<rect class=\"bar\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}</title></rect>",
                tenths(x),
                tenths(bottom * 10 - tall),
                tenths(width),
                tenths(tall),
                escape(&format!("{} {}: {}", point.name, made_at(point), units::bytes(growth(point))))
            ));
        }
        self.line("axis", (LEFT, top), (LEFT, bottom));
        self.line("axis", (LEFT, bottom), (LEFT + PLOT_WIDTH, bottom));
        self.y = bottom + 16;
        self.text(LEFT, "", "start", &made_at(first));
        self.text(
            LEFT + PLOT_WIDTH / 2,
            "",
            "middle",
            "recovery points by time",
        );
        if points.len() > 1 {
            self.text(LEFT + PLOT_WIDTH, "", "end", &made_at(last));
        }
    }

    /// A row for each point of one volume or image.
    fn heat_map(&mut self, title: &str, points: &[&PointStats]) {
        self.y += 40;
        self.text(16, "head", "start", title);
        self.y += 8;
        let mut capacity = 0;
        for stats in points {
            let Some(point) = &stats.point else { continue };
            capacity = capacity.max(point.capacity_bytes);
            self.row(point, &stats.changed_permille);
        }
        self.y += 16;
        self.text(LEFT, "", "start", "0 B");
        let middle = LEFT + PLOT_WIDTH / 2;
        self.text(middle, "", "middle", "position in the image");
        self.text(LEFT + PLOT_WIDTH, "", "end", &units::bytes(capacity));
    }

    fn row(&mut self, point: &RecoveryPoint, shares: &[u32]) {
        let top = self.y;
        self.y = top + ROW_HEIGHT - 4;
        self.text(LEFT - 8, "", "end", &made_at(point));
        if shares.is_empty() {
            self.text(LEFT, "", "start", "the first one");
        }
        let map = HeatMap::of_permille(shares);
        let count = shares.len() as u64;
        for (cell, permille) in shares.iter().enumerate() {
            let index = cell as u64;
            let x = share(index, count, PLOT_WIDTH * 10);
            let next = share(index + 1, count, PLOT_WIDTH * 10);
            let from = share(index, count, point.capacity_bytes);
            let to = share(index + 1, count, point.capacity_bytes);
            let permille = (*permille).min(1000);
            self.put(format_args!(
                "<rect class=\"h{}\" x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{}\"><title>{} to {}: {}.{} % changed</title></rect>",
                map.shade(cell),
                tenths(LEFT * 10 + x),
                tenths((next - x).saturating_sub(5).max(1)),
                ROW_HEIGHT - 2,
                units::bytes(from),
                units::bytes(to),
                permille / 10,
                permille % 10
            ));
        }
        self.y = top + ROW_HEIGHT;
    }

    fn legend(&mut self) {
        self.y += 36;
        let top = self.y;
        self.y += 11;
        for (shade, name) in LEGEND.iter().enumerate() {
            let x = LEFT + shade as u64 * 130;
            self.put(format_args!(
                "<rect class=\"h{shade}\" x=\"{x}\" y=\"{top}\" width=\"13\" height=\"13\"/>"
            ));
            self.text(x + 20, "", "start", name);
        }
    }

    fn finish(self) -> String {
        let height = self.y + 20;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
             <style>\n{STYLE}\n</style>\n\
             <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n{}</svg>\n",
            self.body
        )
    }
}

/// The power of two of bytes that gives at least one line and few of them.
fn grid_step(most: u64) -> u64 {
    let least = (most / (MAX_GRID_LINES - 1)).max(1);
    // Past half of what a u64 holds there is no greater power.
    least.checked_next_power_of_two().unwrap_or(1 << 63)
}

/// `part` of `whole`, of `of`, rounded down.
fn share(part: u64, whole: u64, of: u64) -> u64 {
    let share = u128::from(part) * u128::from(of) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(of)
}

/// A coordinate that is counted in tenths.
fn tenths(count: u64) -> String {
    format!("{}.{}", count / 10, count % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::repo::stats::tests::sample;

    #[test]
    fn the_drawing_is_whole_labelled_and_harmless() {
        let drawing = draw("<repo>", &sample());
        assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
        assert!(drawing.contains("Repository &lt;repo&gt;"));
        assert!(drawing.contains("a &amp; b on h&lt;1&gt;: where it changed"));
        assert!(drawing.contains("prefers-color-scheme:dark"));
        assert!(!drawing.contains("<script") && !drawing.contains("href"));
        for label in [
            "bytes stored by each recovery point",
            ">384.0 MiB<",
            "recovery points by time",
            "position in the image",
            ">1.0 GiB<",
            "2027-01-17T08:00:00Z",
        ] {
            assert!(drawing.contains(label), "{label}\n{drawing}");
        }
        assert_eq!(drawing.matches("class=\"bar\"").count(), 4);
        // Eight cells, and the legend's.
        assert_eq!(drawing.matches("<rect class=\"h").count(), 8 + 5);
        assert_eq!(drawing.matches("the first one").count(), 2);
        let opened = drawing.matches("<text").count() + drawing.matches("<title>").count();
        let closed = drawing.matches("</text>").count() + drawing.matches("</title>").count();
        assert_eq!(opened, closed);
    }

    #[test]
    fn nothing_and_too_much_are_drawn_too() {
        assert!(draw("r", &StatsResult::default()).contains("0 recovery points"));
        let mut stats = sample();
        for stats in &mut stats.points {
            let point = stats.point.as_mut().unwrap();
            point.capacity_bytes = u64::MAX;
            point.work.as_mut().unwrap().stored_bytes = u64::MAX;
        }
        assert_eq!(draw("r", &stats).matches("class=\"bar\"").count(), 4);
    }

    #[test]
    fn lines_of_the_grid_are_few() {
        for most in [
            0,
            1,
            5,
            1000,
            1 << 20,
            (1 << 40) + 1,
            u64::MAX / 3,
            u64::MAX,
        ] {
            let step = grid_step(most);
            assert!(
                step.is_power_of_two() && most / step < MAX_GRID_LINES,
                "{most}"
            );
        }
    }
}
