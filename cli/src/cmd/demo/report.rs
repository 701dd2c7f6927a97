//! What the demo tells at its end.

use std::path::Path;

use serde_json::{Value, json};

use super::proof::Verdict;
use crate::{
    cmd::{pull::Summary, push::Pushed},
    heatmap::{HeatMap, legend},
    output::Output,
    units,
};

/// Cells of a row, in the terminal and in the drawing.
pub(super) const MAP_WIDTH: usize = 64;
/// Rows of the map.
pub(super) const MAP_ROWS: usize = 12;

/// Everything that was measured.
pub(super) struct Report {
    /// The first pull.
    pub(super) full: Summary,
    /// The second.
    pub(super) incremental: Summary,
    /// Transactions that were committed while each ran.
    pub(super) transactions: [u64; 2],
    /// The restore.
    pub(super) pushed: Pushed,
    /// What changed between the pulls.
    pub(super) map: HeatMap,
    /// What was proven.
    pub(super) verdicts: Vec<Verdict>,
}

impl Report {
    /// Whether everything holds.
    pub(super) fn holds(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.holds)
    }

    /// For a person.
    pub(super) fn print(&self, out: &Output, svg: &Path) {
        out.line("");
        out.table(&["", "FULL PULL", "INCREMENTAL PULL"], &self.rows());
        out.line(format!(
            "\nthe incremental pull sent {} of what the full one did; restored in {}",
            units::per_cent(
                self.incremental.counts.sent_bytes,
                self.full.counts.sent_bytes
            ),
            units::span(self.pushed.duration)
        ));
        let cells = u64::try_from(MAP_WIDTH * MAP_ROWS).unwrap_or(1);
        out.line(format!(
            "\nwhat changed between the pulls, from the volume's first byte to its last ({} a cell):",
            units::bytes(self.full.capacity_bytes / cells)
        ));
        let colour = out.colour();
        for row in self.map.terminal(MAP_WIDTH, colour) {
            out.line(format!("  {row}"));
        }
        out.line(format!(
            "  {}   (also drawn in {})\n",
            legend(colour),
            svg.display()
        ));
        for verdict in &self.verdicts {
            let mark = if verdict.holds { "ok  " } else { "FAIL" };
            out.line(format!("{mark}  {}: {}", verdict.claim, verdict.seen));
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let pulls = [&self.full, &self.incremental];
        let row = |label: &str, value: &dyn Fn(&Summary) -> String| {
            let mut row = vec![label.to_owned()];
            row.extend(pulls.iter().map(|pull| value(pull)));
            row
        };
        let bytes = units::bytes;
        let mut rows = vec![
            row("changed", &|pull| bytes(pull.changed_bytes())),
            row("  data", &|pull| bytes(pull.counts.data_bytes)),
            row("  zeros, discarded", &|pull| {
                bytes(pull.counts.zero_bytes + pull.counts.discarded_bytes)
            }),
            row("sent", &|pull| bytes(pull.counts.sent_bytes)),
            row("extents", &|pull| pull.counts.extents.to_string()),
            row("time, with proof", &|pull| units::span(pull.duration)),
            row("writers held", &|pull| {
                units::span(pull.held.unwrap_or_default())
            }),
            row("file system frozen", &|pull| {
                units::span(pull.frozen.unwrap_or_default())
            }),
        ];
        let mut transactions = vec!["transactions meanwhile".to_owned()];
        transactions.extend(self.transactions.map(|count| count.to_string()));
        rows.push(transactions);
        rows
    }

    /// The map as a drawing.
    pub(super) fn svg(&self) -> String {
        let pull = &self.incremental;
        let title = format!(
            "{} of {} changed between two pulls; {} sent",
            units::bytes(pull.changed_bytes()),
            units::bytes(pull.capacity_bytes),
            units::bytes(pull.counts.sent_bytes)
        );
        self.map.svg(MAP_WIDTH, &title)
    }

    /// For a program.
    pub(super) fn json(&self, svg: &Path) -> Value {
        json!({
            "full": self.full.json(),
            "incremental": self.incremental.json(),
            "transactions": { "full": self.transactions[0], "incremental": self.transactions[1] },
            "restore_duration_us": u64::try_from(self.pushed.duration.as_micros()).unwrap_or(u64::MAX),
            "svg": svg,
            "verdicts": self.verdicts.iter().map(|verdict| json!({
                "claim": verdict.claim,
                "holds": verdict.holds,
                "seen": verdict.seen,
            })).collect::<Vec<_>>(),
            "holds": self.holds(),
        })
    }
}
