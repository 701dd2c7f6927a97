//! `tidemark forget`: which recovery points stay, and why.

use std::time::Duration;

use serde_json::{Value, json};
use tidemark_proto::v1::{
    ForgetPointsRequest, ForgetPointsResponse, RetentionPolicy, forget_points_response::Verdict,
};

use crate::{
    cmd::points::{self, FilterArgs},
    context::Context,
    json as as_json,
    output::counted,
    text::plain,
    units,
};

/// Each option of a policy: one of them makes it one.
const POLICY: [&str; 8] = [
    "keep_last",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_within",
    "keep_tags",
];

#[derive(clap::Args, Clone, Debug)]
#[command(
    group = clap::ArgGroup::new("what").args(["points"]).args(POLICY).multiple(true).required(true),
    override_usage = "\
tidemark forget [OPTIONS] <REPOSITORY> <POINT>...
       tidemark forget [OPTIONS] <REPOSITORY> --keep-... <N>",
    after_help = "\
A policy is asked about each volume and image on its own. Of hours, days and so on only those count
that have a point. Forgetting is quick; the space comes back with `tidemark prune`.")]
pub(crate) struct ForgetArgs {
    /// The repository
    repository: String,
    /// Forget these points: ids or unique prefixes
    #[arg(value_name = "POINT", conflicts_with = "filter", conflicts_with_all = POLICY)]
    points: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// What to keep.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Policy: what to keep, forgetting the rest")]
struct PolicyArgs {
    /// The last N points
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: Option<u32>,
    /// The last point of each of the last N hours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_hourly: Option<u32>,
    /// The last point of each of the last N days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_daily: Option<u32>,
    /// The last point of each of the last N weeks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_weekly: Option<u32>,
    /// The last point of each of the last N months
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_monthly: Option<u32>,
    /// The last point of each of the last N years
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_yearly: Option<u32>,
    /// All points that are not older, for example 30d
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    keep_within: Option<Duration>,
    /// All points with this tag, as often as needed
    #[arg(long = "keep-tag", value_name = "TAG")]
    keep_tags: Vec<String>,
}

impl PolicyArgs {
    /// For a request; nothing where nothing was asked for.
    fn into_proto(self) -> Option<RetentionPolicy> {
        let policy = RetentionPolicy {
            last: self.keep_last.unwrap_or_default(),
            hourly: self.keep_hourly.unwrap_or_default(),
            daily: self.keep_daily.unwrap_or_default(),
            weekly: self.keep_weekly.unwrap_or_default(),
            monthly: self.keep_monthly.unwrap_or_default(),
            yearly: self.keep_yearly.unwrap_or_default(),
            within: self.keep_within.map(units::to_proto),
            tags: self.keep_tags,
        };
        (policy != RetentionPolicy::default()).then_some(policy)
    }
}

/// Forgets, and says of each point why it stays or that it goes.
pub(crate) async fn run(args: ForgetArgs, context: &Context) -> anyhow::Result<()> {
    let dry_run = args.dry_run;
    let client = context.client().await?;
    let request = request(args);
    let reply = client.repositories().forget_points(request).await?;
    let reply = reply.into_inner();
    context.out.document(&json(&reply, dry_run));
    context.out.table(&HEADING, &rows(&reply, dry_run));
    context.out.say(sum(&reply, dry_run));
    Ok(())
}

fn request(args: ForgetArgs) -> ForgetPointsRequest {
    ForgetPointsRequest {
        repository: args.repository,
        point_ids: args.points,
        policy: args.policy.into_proto(),
        filter: args.filter.into_proto(),
        dry_run: args.dry_run,
    }
}

fn json(reply: &ForgetPointsResponse, dry_run: bool) -> Value {
    let verdict = |verdict: &Verdict| {
        json!({
            "point": verdict.point.as_ref().map(as_json::point),
            "kept_because": verdict.kept_because,
        })
    };
    json!({
        "dry_run": dry_run,
        "verdicts": reply.verdicts.iter().map(verdict).collect::<Vec<_>>(),
    })
}

const HEADING: [&str; 5] = ["POINT", "NAME", "HOST", "MADE AT", "VERDICT"];

fn rows(reply: &ForgetPointsResponse, dry_run: bool) -> Vec<Vec<String>> {
    let row = |verdict: &Verdict| {
        let point = verdict.point.clone().unwrap_or_default();
        let said = match (verdict.kept_because.as_slice(), dry_run) {
            ([], true) => "would be forgotten".to_owned(),
            ([], false) => "forgotten".to_owned(),
            (reasons, _) => format!("kept: {}", plain(&reasons.join(", "))),
        };
        vec![
            plain(&point.id),
            plain(&point.name),
            plain(&point.host),
            points::made_at(&point),
            said,
        ]
    };
    reply.verdicts.iter().map(row).collect()
}

fn sum(reply: &ForgetPointsResponse, dry_run: bool) -> String {
    let all = reply.verdicts.len();
    let kept = reply
        .verdicts
        .iter()
        .filter(|verdict| !verdict.kept_because.is_empty())
        .count();
    format!(
        "{} {}, {kept} kept",
        counted((all - kept) as u64, "point"),
        if dry_run {
            "would be forgotten"
        } else {
            "forgotten"
        }
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tidemark_proto::v1::RecoveryPoint;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        args: ForgetArgs,
    }

    fn parse(line: &str) -> Result<ForgetPointsRequest, clap::error::ErrorKind> {
        let words = std::iter::once("forget").chain(line.split_whitespace());
        Line::try_parse_from(words)
            .map(|line| request(line.args))
            .map_err(|error| error.kind())
    }

    #[test]
    fn neither_points_nor_a_policy_is_no_command() {
        use clap::error::ErrorKind as Kind;
        for (line, kind) in [
            ("repo", Kind::MissingRequiredArgument),
            ("repo --name data", Kind::MissingRequiredArgument),
            ("repo --dry-run", Kind::MissingRequiredArgument),
            ("repo ab --keep-last 1", Kind::ArgumentConflict),
            ("repo ab --name data", Kind::ArgumentConflict),
            ("repo --keep-last 0", Kind::ValueValidation),
        ] {
            assert_eq!(parse(line), Err(kind), "{line}");
        }
    }

    #[test]
    fn a_policy_arrives_whole() {
        let request = parse(
            "repo --keep-last 1 --keep-hourly 2 --keep-daily 3 --keep-weekly 4 --keep-monthly 5 \
             --keep-yearly 6 --keep-within 30d --keep-tag a --keep-tag b --name n --host h --tag t",
        )
        .unwrap();
        let policy = request.policy.unwrap();
        assert_eq!((policy.last, policy.hourly, policy.daily), (1, 2, 3));
        assert_eq!((policy.weekly, policy.monthly, policy.yearly), (4, 5, 6));
        assert_eq!(policy.within.unwrap().seconds, 30 * 86_400);
        assert_eq!(policy.tags, ["a", "b"]);
        let filter = request.filter.unwrap();
        assert_eq!((filter.name.as_str(), filter.host.as_str()), ("n", "h"));
        assert_eq!(filter.tags, ["t"]);
        let points = parse("repo ab cd --dry-run").unwrap();
        assert_eq!(points.point_ids, ["ab", "cd"]);
        assert!(points.dry_run && points.policy.is_none() && points.filter.is_none());
    }

    #[test]
    fn each_point_has_its_verdict() {
        let verdict = |id: &str, because: &[&str]| Verdict {
            point: Some(RecoveryPoint {
                id: id.to_owned(),
                name: "data".to_owned(),
                ..Default::default()
            }),
            kept_because: because.iter().map(|reason| (*reason).to_owned()).collect(),
        };
        let reply = ForgetPointsResponse {
            verdicts: vec![verdict("aa", &[]), verdict("bb", &["last", "day"])],
        };
        let said: Vec<String> = rows(&reply, false)
            .into_iter()
            .filter_map(|mut row| row.pop())
            .collect();
        assert_eq!(said, ["forgotten", "kept: last, day"]);
        assert_eq!(sum(&reply, true), "1 point would be forgotten, 1 kept");
        assert_eq!(json(&reply, true)["verdicts"][1]["kept_because"][0], "last");
    }
}
