//! The figures, and which aims they meet.

use super::measure::Row;

/// What a full backup is held against.
pub(crate) const ZSTD: &str = "zstd -3 -T2 of the image";
/// What an incremental one is held against.
pub(crate) const ZSTD_CHANGED: &str = "zstd -3 -T2 of the changed blocks";
/// Our rows.
pub(crate) const FULL: &str = "full backup";
pub(crate) const INCREMENTAL: &str = "incremental backup";
pub(crate) const RESTORE: &str = "restore";

/// A peer's row of one of our names.
pub(crate) fn of_peer(peer: &str, what: &str) -> String {
    format!("{peer}, {what}")
}

/// Something to be reached.
struct Aim {
    what: &'static str,
    /// At least, or at most.
    least: bool,
    limit: f64,
    found: Option<f64>,
}

/// Prints all rows, and a row for each aim.
pub(crate) fn print(rows: &[Row], peers: &[&str]) {
    println!("\n| what | seconds | CPU seconds | peak MiB | MB stored |");
    println!("|---|---|---|---|---|");
    for row in rows {
        let size = row.size_mb.map_or(String::new(), |mb| format!("{mb:.1}"));
        println!(
            "| {} | {:.2} | {:.2} | {:.0} | {size} |",
            row.what, row.seconds, row.cpu_seconds, row.peak_mib
        );
    }
    println!("\n| aim | limit | here | met |\n|---|---|---|---|");
    for aim in aims(rows, peers) {
        let word = if aim.least { "at least" } else { "at most" };
        let met = |found: f64| found == aim.limit || (found > aim.limit) == aim.least;
        let (found, met) = match aim.found {
            None => ("nothing to compare with".to_owned(), ""),
            Some(found) => (format!("{found:.2}"), if met(found) { "yes" } else { "no" }),
        };
        println!(
            "| {} | {word} {:.2} | {found} | {met} |",
            aim.what, aim.limit
        );
    }
}

fn aims(rows: &[Row], peers: &[&str]) -> [Aim; 6] {
    let of = |what: &str| rows.iter().find(|row| row.what == what);
    let seconds = |what: &str| of(what).map(|row| row.seconds);
    let size = |what: &str| of(what).and_then(|row| row.size_mb);
    let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    // The fastest of the others.
    let best = |what: &str| {
        let all = peers
            .iter()
            .filter_map(|peer| seconds(&of_peer(peer, what)));
        all.reduce(f64::min)
    };
    let ours = [FULL, INCREMENTAL, RESTORE];
    let peaks = ours
        .iter()
        .filter_map(|what| of(what))
        .map(|row| row.peak_mib);
    let aim = |what, least, limit, found| Aim {
        what,
        least,
        limit,
        found,
    };
    [
        aim(
            "full: seconds to zstd's of the image",
            false,
            1.15,
            ratio(seconds(FULL), seconds(ZSTD)),
        ),
        aim(
            "full: bytes to zstd's of the image",
            false,
            1.03,
            ratio(size(FULL), size(ZSTD)),
        ),
        aim(
            "incremental: the best other's seconds to ours",
            true,
            10.0,
            ratio(best(INCREMENTAL), seconds(INCREMENTAL)),
        ),
        aim(
            "incremental: bytes to zstd's of the changed blocks",
            false,
            1.3,
            ratio(size(INCREMENTAL), size(ZSTD_CHANGED)),
        ),
        aim(
            "restore: the best other's seconds to ours",
            true,
            3.0,
            ratio(best(RESTORE), seconds(RESTORE)),
        ),
        aim("peak memory in MiB", false, 256.0, peaks.reduce(f64::max)),
    ]
}
