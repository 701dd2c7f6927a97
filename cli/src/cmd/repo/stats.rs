//! `tidemark repo stats`: growth by recovery point, and where images change.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write, path::Path, path::PathBuf};

use anyhow::Context as _;
use tidemark_proto::v1::{
    GetStatsRequest, PointStats, RecoveryPoint, StatsResult, operation::Result as JobResult,
};

use super::picture;
use crate::{
    cmd::{follow, outcome, points::made_at},
    context::Context,
    heatmap::{HeatMap, legend},
    json as as_json,
    output::fill_bar,
    select::malformed,
    text::plain,
    units,
};

/// Width of a growth bar.
const BAR_CELLS: usize = 16;
/// Digits of a point's id that are shown beside its bar.
const ID_DIGITS: usize = 8;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct StatsArgs {
    /// The repository
    repository: String,
    /// Also draw it into this file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Overwrite that file
    #[arg(long, requires = "svg")]
    force: bool,
}

/// Shows the numbers, and draws them where a file was named.
pub(super) async fn run(args: StatsArgs, context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let request = GetStatsRequest {
        repository: args.repository.clone(),
    };
    let mut repositories = client.repositories();
    let reply = follow::begin(context, repositories.get_stats(request)).await?;
    let ended = follow::to_end(reply.operation, "GetStats", "reading", &client, context).await?;
    let Some(JobResult::Stats(stats)) = &ended.result else {
        return Err(malformed("GetStats", "result"));
    };
    if let Some(path) = &args.svg {
        let drawing = picture::draw(&args.repository, stats);
        write(path, &drawing, args.force).with_context(|| format!("writing {}", path.display()))?;
    }
    context.out.document(&as_json::operation(&ended));
    for line in lines(stats, context.out.colour()) {
        context.out.line(line);
    }
    if let Some(path) = &args.svg {
        context.out.say(format!("drawn into {}", path.display()));
    }
    Ok(())
}

fn write(path: &Path, text: &str, force: bool) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path)?.write_all(text.as_bytes())
}

/// The points of each volume or image of each host, in their order.
pub(super) fn by_origin(stats: &StatsResult) -> BTreeMap<(&str, &str), Vec<&PointStats>> {
    let mut origins: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for stats in &stats.points {
        if let Some(point) = &stats.point {
            let key = (point.name.as_str(), point.host.as_str());
            origins.entry(key).or_default().push(stats);
        }
    }
    origins
}

/// By how much a point made the repository grow.
pub(super) fn growth(point: &RecoveryPoint) -> u64 {
    point.work.map_or(0, |work| work.stored_bytes)
}

/// What a person sees in a terminal.
fn lines(stats: &StatsResult, colour: bool) -> Vec<String> {
    let mut lines = outcome::stats(stats);
    let origins = by_origin(stats);
    let most = stats
        .points
        .iter()
        .filter_map(|stats| stats.point.as_ref().map(growth))
        .max()
        .unwrap_or(0);
    for ((name, host), points) in &origins {
        lines.push(String::new());
        lines.push(format!("{} on {}", plain(name), plain(host)));
        lines.push(format!(
            "  {:<20}  {:<ID_DIGITS$}  {:>10}  {:<width$}  WHERE IT CHANGED",
            "MADE AT",
            "POINT",
            "GROWTH",
            "",
            width = BAR_CELLS + 2
        ));
        lines.extend(points.iter().map(|stats| line(stats, most, colour)));
    }
    if !origins.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "from an image's start to its end, how much of each part changed: {}",
            legend(colour)
        ));
    }
    lines
}

fn line(stats: &PointStats, most: u64, colour: bool) -> String {
    let point = stats.point.clone().unwrap_or_default();
    let cells = stats.changed_permille.len();
    let heat = match HeatMap::of_permille(&stats.changed_permille)
        .terminal(cells, colour)
        .pop()
    {
        Some(row) => row,
        None => "the first one".to_owned(),
    };
    let id: String = plain(&point.id).chars().take(ID_DIGITS).collect();
    format!(
        "  {:<20}  {id:<ID_DIGITS$}  {:>10}  {}  {heat}",
        made_at(&point),
        units::bytes(growth(&point)),
        fill_bar(growth(&point), most, BAR_CELLS),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use tidemark_proto::v1::PointWork;

    use super::*;

    pub(in crate::cmd::repo) fn sample() -> StatsResult {
        let point = |id: &str, name: &str, day: i64, stored: u64, shares: &[u32]| PointStats {
            point: Some(RecoveryPoint {
                id: id.repeat(16),
                name: name.to_owned(),
                host: "h<1>".to_owned(),
                capacity_bytes: 1 << 30,
                created_at: Some(prost_types::Timestamp {
                    seconds: 1_800_000_000 + day * 86_400,
                    nanos: 0,
                }),
                work: Some(PointWork {
                    stored_bytes: stored,
                    changed_bytes: stored * 2,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            changed_permille: shares.to_vec(),
        };
        StatsResult {
            points: vec![
                point("aa", "data", 0, 400 << 20, &[]),
                point("bb", "a & b", 0, 100 << 20, &[]),
                point("cc", "data", 1, 50 << 20, &[0, 1000, 20, 300]),
                point("dd", "data", 2, 0, &[0, 0, 0, 0]),
            ],
            image_bytes: 4 << 30,
            packs: 9,
            stored_bytes: 550 << 20,
            needed_bytes: 540 << 20,
            plain_bytes: 1 << 30,
            condemned_packs: 1,
        }
    }

    #[test]
    fn growth_and_heat_in_a_terminal() {
        assert_eq!(
            lines(&sample(), false),
            [
                "4 recovery points of 4.0 GiB in sum",
                "550.0 MiB stored in 9 packs; 540.0 MiB of it needed, 1.0 GiB before compression",
                "waiting to be deleted: 1 pack",
                "",
                "a & b on h<1>",
                "  MADE AT               POINT         GROWTH                      WHERE IT CHANGED",
                "  2027-01-15T08:00:00Z  bbbbbbbb   100.0 MiB  [####------------]  the first one",
                "",
                "data on h<1>",
                "  MADE AT               POINT         GROWTH                      WHERE IT CHANGED",
                "  2027-01-15T08:00:00Z  aaaaaaaa   400.0 MiB  [################]  the first one",
                "  2027-01-16T08:00:00Z  cccccccc    50.0 MiB  [##--------------]  ·█░▓",
                "  2027-01-17T08:00:00Z  dddddddd         0 B  [----------------]  ····",
                "",
                "from an image's start to its end, how much of each part changed: · untouched   ░ a little   ▒ 5 %   ▓ 25 %   █ 60 % and up",
            ]
        );
        let none = lines(&StatsResult::default(), false);
        assert_eq!(none[0], "0 recovery points of 0 B in sum");
        assert_eq!(none.len(), 2);
    }

    #[test]
    fn a_drawing_is_overwritten_only_when_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.svg");
        write(&path, "a longer one", false).unwrap();
        assert!(write(&path, "two", false).is_err());
        write(&path, "two", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    }
}
