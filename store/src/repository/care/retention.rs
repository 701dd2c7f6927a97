//! Which recovery points to keep, and why. Pure.

use std::collections::BTreeMap;

use crate::{repository::format::point::Point, units::Id};

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;

/// What to keep of each volume's points. Each number is of hours, days and so on that have a point, not
/// of calendar ones: a host that was off keeps its history. A policy that says nothing keeps everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// So many of the latest.
    pub last: u32,
    /// The latest of so many hours,
    pub hourly: u32,
    /// days,
    pub daily: u32,
    /// weeks (from Monday),
    pub weekly: u32,
    /// months,
    pub monthly: u32,
    /// and years, all in UTC.
    pub yearly: u32,
    /// All that are not older than this, in seconds.
    pub within_seconds: Option<u64>,
    /// All with one of these tags.
    pub tags: Vec<String>,
}

/// Why a point is kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// There is no policy.
    NoPolicy,
    /// It is among the latest; its place among them, from 1.
    Last(u32),
    /// It is the latest of its hour; the hour's place, from 1.
    Hourly(u32),
    /// Of its day.
    Daily(u32),
    /// Of its week.
    Weekly(u32),
    /// Of its month.
    Monthly(u32),
    /// Of its year.
    Yearly(u32),
    /// It is young enough.
    Within,
    /// It has this tag.
    Tag(String),
}

impl Policy {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// For each point, in the order given, why it is kept; no reason: it may go. Points of one host and one
/// volume (or one image's name) are judged together. `now_us`: microseconds since the UNIX epoch.
pub fn retain(points: &[(Id, Point)], policy: &Policy, now_us: u64) -> Vec<(Id, Vec<Reason>)> {
    let mut decided: Vec<_> = points.iter().map(|(id, _)| (*id, Vec::new())).collect();
    let mut series: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (place, (_, point)) in points.iter().enumerate() {
        let key = (&point.host, point.volume, &point.name);
        series.entry(key).or_default().push(place);
    }
    for places in series.into_values() {
        judge(points, places, policy, now_us, &mut decided);
    }
    decided
}

fn judge(
    points: &[(Id, Point)],
    mut places: Vec<usize>,
    policy: &Policy,
    now_us: u64,
    decided: &mut [(Id, Vec<Reason>)],
) {
    // The latest first.
    places.sort_by_key(|place| std::cmp::Reverse((points[*place].1.created_us, points[*place].0)));
    type Period = (fn(u64) -> u64, fn(u32) -> Reason);
    let periods: [(u32, Period); 6] = [
        (policy.last, (|_| 0, Reason::Last)),
        (policy.hourly, (|at| at / (3600 * SECOND), Reason::Hourly)),
        (policy.daily, (|at| at / DAY, Reason::Daily)),
        // 1 January 1970 was a Thursday.
        (policy.weekly, (|at| (at / DAY + 3) / 7, Reason::Weekly)),
        (policy.monthly, (|at| month(at / DAY), Reason::Monthly)),
        (policy.yearly, (|at| month(at / DAY) / 12, Reason::Yearly)),
    ];
    for (wanted, (period, reason)) in periods {
        let each = matches!(reason(1), Reason::Last(_));
        let (mut count, mut seen) = (0, None);
        for place in &places {
            let this = period(points[*place].1.created_us);
            if count < wanted && (each || seen != Some(this)) {
                count += 1;
                decided[*place].1.push(reason(count));
            }
            seen = Some(this);
        }
    }
    for place in places {
        let (point, reasons) = (&points[place].1, &mut decided[place].1);
        let age_us = now_us.saturating_sub(point.created_us);
        if policy
            .within_seconds
            .is_some_and(|within| age_us / SECOND <= within)
        {
            reasons.push(Reason::Within);
        }
        let tags = policy.tags.iter().filter(|tag| point.tags.contains(tag));
        reasons.extend(tags.map(|tag| Reason::Tag(tag.clone())));
        if policy.is_empty() {
            reasons.push(Reason::NoPolicy);
        }
    }
}

/// Months since the year 0 of a day counted from 1 January 1970. Years are counted from March, so that
/// the leap day is the last, in eras of 400 years (146,097 days).
const fn month(day: u64) -> u64 {
    let day = day + 719_468;
    let of_era = day % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    (day / 146_097 * 400 + year_of_era) * 12 + from_march + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        repository::{
            format::point::{Made, Trust, Work},
            id::Digest,
        },
        units::Epoch,
    };

    fn point(n: u8, created_us: u64, volume: u8, tags: &[&str]) -> (Id, Point) {
        let point = Point {
            root: Digest::ZEROS,
            capacity: 4096,
            block_bytes: 4096,
            created_us,
            volume: Id([volume; 16]),
            lineage: Id::NIL,
            epoch: Epoch(0),
            snapshot: Id::NIL,
            base: Id::NIL,
            made: Made::Incremental,
            trust: Trust::Exact,
            work: Work::default(),
            host: "host".into(),
            name: "volume".into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        (Id([n; 16]), point)
    }

    #[test]
    fn months_and_years_are_those_of_the_calendar() {
        let at = |year: u64, month: u64| year * 12 + month - 1;
        assert_eq!(month(0), at(1970, 1));
        assert_eq!(month(30), at(1970, 1));
        assert_eq!(month(31), at(1970, 2));
        // 29 February and 1 March 2024, 31 December 2026, 1 January 2027.
        assert_eq!(month(19_782), at(2024, 2));
        assert_eq!(month(19_783), at(2024, 3));
        assert_eq!(month(20_818), at(2026, 12));
        assert_eq!(month(20_819), at(2027, 1));
    }

    #[test]
    fn each_kept_point_has_its_reasons() {
        let noon = 20_000 * DAY + DAY / 2;
        let hour = DAY / 24;
        let points = [
            point(1, noon, 1, &[]),
            point(2, noon - hour / 2, 1, &[]),
            point(3, noon - hour, 1, &["keep"]),
            point(4, noon - DAY, 1, &[]),
            point(5, noon - 40 * DAY, 1, &[]),
            point(6, noon - 800 * DAY, 2, &[]),
        ];
        let policy = Policy {
            last: 1,
            hourly: 2,
            daily: 2,
            yearly: 1,
            tags: vec!["keep".into()],
            ..Policy::default()
        };
        let decided: Vec<_> = retain(&points, &policy, noon)
            .into_iter()
            .map(|(_, reasons)| reasons)
            .collect();
        let first = [
            Reason::Last(1),
            Reason::Hourly(1),
            Reason::Daily(1),
            Reason::Yearly(1),
        ];
        assert_eq!(decided[0], first);
        assert_eq!(decided[1], [Reason::Hourly(2)]);
        assert_eq!(decided[2], [Reason::Tag("keep".into())]);
        assert_eq!(decided[3], [Reason::Daily(2)]);
        assert_eq!(decided[4], []);
        // Another volume's only point.
        assert_eq!(decided[5], first);
    }

    #[test]
    fn no_policy_keeps_everything_and_time_counts_when_asked() {
        let points = [point(1, 10 * SECOND, 1, &[]), point(2, 90 * SECOND, 1, &[])];
        let none = retain(&points, &Policy::default(), 100 * SECOND);
        assert!(
            none.iter()
                .all(|(_, reasons)| *reasons == [Reason::NoPolicy])
        );
        let policy = Policy {
            within_seconds: Some(10),
            ..Policy::default()
        };
        let young = retain(&points, &policy, 100 * SECOND);
        assert_eq!((young[0].1.len(), young[1].1.len()), (0, 1));
        assert_eq!(retain(&points, &policy, 0)[0].1, [Reason::Within]);
    }
}
