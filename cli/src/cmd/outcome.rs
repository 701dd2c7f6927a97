//! What jobs on repositories gave, in words.

use tidemark_proto::v1::{
    CheckResult, CopyResult, PruneResult, RecoveryPoint, RepairResult, RestorePointResult,
    StatsResult, Trust, operation::Result as JobResult,
};

use crate::{output::counted, text::plain, units};

/// A result, line by line.
pub(crate) fn lines(result: &JobResult) -> Vec<String> {
    match result {
        JobResult::Backup(result) => result.points.iter().flat_map(backup).collect(),
        JobResult::RestorePoint(result) => vec![restore(result)],
        JobResult::Prune(result) => prune(result),
        JobResult::Check(result) => check(result),
        JobResult::Repair(result) => repair(result),
        JobResult::Copy(result) => copy(result),
        JobResult::Stats(result) => stats(result),
    }
}

fn backup(point: &RecoveryPoint) -> Vec<String> {
    let work = point.work.unwrap_or_default();
    let took = work
        .took
        .as_ref()
        .map(units::from_proto)
        .unwrap_or_default();
    let how = match (point.full_reason.as_str(), point.base_id.as_str()) {
        ("", base) => format!("what changed since {base}"),
        (reason, "") => format!("full, {}", plain(reason)),
        (reason, base) => format!("full, {}; compared with {base}", plain(reason)),
    };
    let mut lines = vec![
        format!("{} of {}: {how}", point.id, plain(&point.name)),
        format!(
            "  {} read of {}, {} changed, {} new, {} stored",
            units::bytes(work.read_bytes),
            units::bytes(point.capacity_bytes),
            units::bytes(work.changed_bytes),
            units::bytes(work.new_bytes),
            units::bytes(work.stored_bytes)
        ),
        format!(
            "  took {}, {}",
            units::span(took),
            units::rate(work.read_bytes, took)
        ),
    ];
    match point.trust() {
        Trust::Superset => lines.push(
            "  superset: more may have been read than had changed; the point is exact".to_owned(),
        ),
        Trust::Broken => lines
            .push("  NOT TO BE TRUSTED, changes may be missing: back up with --full".to_owned()),
        Trust::Continuous | Trust::Unspecified => {}
    }
    if !point.tags.is_empty() {
        lines.push(format!("  tags {}", plain(&point.tags.join(", "))));
    }
    lines
}

fn restore(result: &RestorePointResult) -> String {
    format!(
        "{} of data; {} were not there already and were written",
        units::bytes(result.data_bytes),
        units::bytes(result.written_bytes)
    )
}

fn prune(result: &PruneResult) -> Vec<String> {
    let mut lines = Vec::new();
    if result.dry_run {
        lines.push("a dry run: nothing of this was done".to_owned());
    }
    let said = lines.len();
    if result.deleted_packs > 0 {
        lines.push(format!(
            "deleted: {}, {}",
            counted(result.deleted_packs, "pack"),
            units::bytes(result.deleted_bytes)
        ));
    }
    if result.condemned_packs > 0 {
        lines.push(format!(
            "to be deleted by a prune after the grace: {}, {}",
            counted(result.condemned_packs, "pack"),
            units::bytes(result.condemned_bytes)
        ));
    }
    if result.pardoned_packs > 0 {
        lines.push(format!(
            "kept after all, because needed again: {}",
            counted(result.pardoned_packs, "pack")
        ));
    }
    if result.moved_bytes > 0 {
        lines.push(format!(
            "stored anew, out of packs that were mostly waste: {}",
            units::bytes(result.moved_bytes)
        ));
    }
    if lines.len() == said {
        lines.push("nothing to delete".to_owned());
    }
    lines
}

fn check(result: &CheckResult) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &result.findings {
        lines.push(plain(&finding.message));
        lines.push(match finding.point_ids.as_slice() {
            [] => "  no recovery point needs it".to_owned(),
            ids => format!("  needed by {}", plain(&ids.join(", "))),
        });
    }
    let shown = result.findings.len() as u64;
    if result.total_findings > shown {
        lines.push(format!("and {} more", result.total_findings - shown));
    }
    lines.push(format!(
        "{} and {} checked, {} of packs read whole: {}",
        counted(result.points, "recovery point"),
        counted(result.packs, "pack"),
        units::bytes(result.read_bytes),
        match result.total_findings.max(shown) {
            0 => "no damage".to_owned(),
            findings => counted(findings, "finding"),
        }
    ));
    lines
}

fn repair(result: &RepairResult) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |number: u64, what: &str, how: &str| {
        if number > 0 {
            lines.push(format!("{} {how}", counted(number, what)));
        }
    };
    add(result.replaced_packs, "pack", "replaced");
    add(result.replaced_indexes, "index file", "replaced");
    let second = "taken from the second repository";
    add(result.fetched_blobs, "piece", second);
    let fetched = result.fetched_point_ids.len() as u64;
    add(fetched, "recovery point", second);
    add(result.lost_blobs, "piece", "whole nowhere");
    for id in &result.lost_point_ids {
        lines.push(format!("recovery point {} is still damaged", plain(id)));
    }
    if lines.is_empty() {
        lines.push("nothing to mend".to_owned());
    }
    lines
}

fn copy(result: &CopyResult) -> Vec<String> {
    let copied = result
        .copied
        .iter()
        .map(|copied| format!("{} is there as {}", copied.point_id, copied.copy_id));
    let sum = counted(result.copied.len() as u64, "recovery point");
    copied.chain([format!("{sum} copied")]).collect()
}

/// The sums only: `tidemark repo stats` draws the rest.
pub(crate) fn stats(result: &StatsResult) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{} of {} in sum",
            counted(result.points.len() as u64, "recovery point"),
            units::bytes(result.image_bytes)
        ),
        format!(
            "{} stored in {}; {} of it needed, {} before compression",
            units::bytes(result.stored_bytes),
            counted(result.packs, "pack"),
            units::bytes(result.needed_bytes),
            units::bytes(result.plain_bytes)
        ),
    ];
    if result.condemned_packs > 0 {
        lines.push(format!(
            "waiting to be deleted: {}",
            counted(result.condemned_packs, "pack")
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use tidemark_proto::v1::{BackupResult, CheckFinding, PointWork, copy_result::Copied};

    use super::*;

    #[test]
    fn a_backup_says_how_much_how_fast_and_why_full() {
        let work = PointWork {
            read_bytes: 1 << 30,
            changed_bytes: 300 << 20,
            new_bytes: 200 << 20,
            stored_bytes: 90 << 20,
            took: Some(prost_types::Duration {
                seconds: 4,
                nanos: 0,
            }),
        };
        let full = RecoveryPoint {
            id: "aa".to_owned(),
            name: "data\x1b[2J".to_owned(),
            capacity_bytes: 1 << 30,
            full_reason: "it is the first".to_owned(),
            trust: Trust::Continuous.into(),
            work: Some(work),
            ..Default::default()
        };
        let next = RecoveryPoint {
            id: "bb".to_owned(),
            name: "data".to_owned(),
            base_id: "aa".to_owned(),
            full_reason: String::new(),
            trust: Trust::Superset.into(),
            tags: vec!["a".to_owned(), "b".to_owned()],
            work: None,
            ..full.clone()
        };
        let points = vec![full, next];
        assert_eq!(
            lines(&JobResult::Backup(BackupResult { points })),
            [
                "aa of data\u{fffd}[2J: full, it is the first",
                "  1.0 GiB read of 1.0 GiB, 300.0 MiB changed, 200.0 MiB new, 90.0 MiB stored",
                "  took 4.0 s, 256.0 MiB/s",
                "bb of data: what changed since aa",
                "  0 B read of 1.0 GiB, 0 B changed, 0 B new, 0 B stored",
                "  took 0 us, 0 B/s",
                "  superset: more may have been read than had changed; the point is exact",
                "  tags a, b",
            ]
        );
    }

    #[test]
    fn a_prune_names_only_what_there_was() {
        assert_eq!(prune(&PruneResult::default()), ["nothing to delete"]);
        let result = PruneResult {
            deleted_packs: 1,
            deleted_bytes: 1024,
            pardoned_packs: 2,
            condemned_packs: 3,
            condemned_bytes: 4096,
            moved_bytes: 512,
            dry_run: true,
        };
        assert_eq!(
            prune(&result),
            [
                "a dry run: nothing of this was done",
                "deleted: 1 pack, 1.0 KiB",
                "to be deleted by a prune after the grace: 3 packs, 4.0 KiB",
                "kept after all, because needed again: 2 packs",
                "stored anew, out of packs that were mostly waste: 512 B",
            ]
        );
    }

    #[test]
    fn a_check_names_what_is_affected_and_how_many_more_there_are() {
        let finding = |message: &str, points: &[&str]| CheckFinding {
            message: message.to_owned(),
            point_ids: points.iter().map(|id| (*id).to_owned()).collect(),
        };
        let result = CheckResult {
            findings: vec![
                finding("pack p at 17", &["aa", "bb"]),
                finding("pack q", &[]),
            ],
            total_findings: 5,
            points: 2,
            packs: 1,
            read_bytes: 0,
        };
        assert_eq!(
            check(&result),
            [
                "pack p at 17",
                "  needed by aa, bb",
                "pack q",
                "  no recovery point needs it",
                "and 3 more",
                "2 recovery points and 1 pack checked, 0 B of packs read whole: 5 findings",
            ]
        );
    }

    #[test]
    fn the_rest_in_words() {
        let repaired = RepairResult {
            fetched_blobs: 2,
            lost_blobs: 1,
            replaced_packs: 1,
            lost_point_ids: vec!["cc".to_owned()],
            ..Default::default()
        };
        assert_eq!(
            repair(&repaired),
            [
                "1 pack replaced",
                "2 pieces taken from the second repository",
                "1 piece whole nowhere",
                "recovery point cc is still damaged",
            ]
        );
        let copied = vec![Copied {
            point_id: "aa".to_owned(),
            copy_id: "dd".to_owned(),
        }];
        assert_eq!(
            copy(&CopyResult { copied }),
            ["aa is there as dd", "1 recovery point copied"]
        );
        let result = RestorePointResult {
            written_bytes: 4096,
            data_bytes: 1 << 20,
        };
        assert_eq!(
            restore(&result),
            "1.0 MiB of data; 4.0 KiB were not there already and were written"
        );
    }
}
