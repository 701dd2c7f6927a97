//! Finding recovery points, and forgetting them.

use tidemark_proto::v1;
use tidemark_store::{
    repository::{
        Point, Points,
        care::retention::{Policy, Reason, retain},
    },
    units::Id,
};

use super::{Backups, told};
use crate::manager::{Error, ErrorReason};

/// Names the newest point.
const LATEST: &str = "latest";

/// Which points; what is empty does not matter.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Filter {
    /// The volume's or image's name.
    pub name: String,
    /// The host.
    pub host: String,
    /// One of them.
    pub tags: Vec<String>,
}

impl Filter {
    fn has(&self, point: &Point) -> bool {
        let says = |wanted: &String, found: &String| wanted.is_empty() || wanted == found;
        let tagged = |tag| point.tags.contains(tag);
        says(&self.name, &point.name)
            && says(&self.host, &point.host)
            && (self.tags.is_empty() || self.tags.iter().any(tagged))
    }
}

/// Which points to forget.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForgetArgs {
    /// The repository's name.
    pub repository: String,
    /// These, by id or prefix; empty with a policy.
    pub points: Vec<String>,
    /// Those that it does not keep.
    pub policy: Option<Policy>,
    /// Of these.
    pub filter: Filter,
    /// Only say.
    pub dry_run: bool,
}

/// What becomes of a point.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Which.
    pub point: v1::RecoveryPoint,
    /// Why it stays; empty: it is forgotten.
    pub kept_because: Vec<String>,
}

/// The point with this id or with a prefix that only it has, or the latest of a filter.
pub(super) fn resolve<'a>(
    found: &'a Points,
    wanted: &str,
    filter: &Filter,
) -> Result<&'a (Id, Point), Error> {
    let not_found = |why: String| Error::new(ErrorReason::PointNotFound, why).with("point", wanted);
    if wanted == LATEST {
        let fitting = found.points.iter().rfind(|(_, point)| filter.has(point));
        return fitting.ok_or_else(|| not_found("no recovery point is like that".to_owned()));
    }
    if wanted.is_empty() {
        return Err(Error::invalid("point_id", "it is empty"));
    }
    let fitting = |(id, _): &&(Id, Point)| id.to_string().starts_with(wanted);
    let mut fitting = found.points.iter().filter(fitting);
    match (fitting.next(), fitting.next()) {
        (Some(point), None) => Ok(point),
        (Some(_), Some(_)) => Err(Error::invalid(
            "point_id",
            format!("more than one recovery point has the prefix \"{wanted}\""),
        )),
        (None, _) => Err(not_found(format!(
            "no recovery point has the id or prefix \"{wanted}\""
        ))),
    }
}

/// All of these, or all that a filter has.
pub(super) fn select(
    found: &Points,
    wanted: &[String],
    filter: &Filter,
) -> Result<Vec<(Id, Point)>, Error> {
    if wanted.is_empty() {
        let fitting = found.points.iter().filter(|(_, point)| filter.has(point));
        return Ok(fitting.cloned().collect());
    }
    let mut selected: Vec<(Id, Point)> = Vec::new();
    for one in wanted {
        let point = resolve(found, one, filter)?;
        if !selected.iter().any(|(id, _)| *id == point.0) {
            selected.push(point.clone());
        }
    }
    Ok(selected)
}

impl Backups {
    /// Recovery points, the oldest first, and what is wrong with others.
    pub async fn points(
        &self,
        repository: &str,
        filter: Filter,
    ) -> Result<(Vec<v1::RecoveryPoint>, Vec<String>), Error> {
        let found = self
            .ask(repository, |repository| repository.points())
            .await?;
        let points = select(&found, &[], &filter)?;
        let damaged = found.damaged.iter().map(ToString::to_string).collect();
        let points = points.iter().map(|(id, point)| told::point(*id, point));
        Ok((points.collect(), damaged))
    }

    /// Forgets points, or says which it would.
    pub async fn forget(&self, args: ForgetArgs) -> Result<Vec<Verdict>, Error> {
        let chosen = !args.points.is_empty();
        if chosen == args.policy.is_some() {
            let why = "give either recovery points or a policy";
            return Err(Error::invalid("policy", why));
        }
        if args
            .policy
            .as_ref()
            .is_some_and(|policy| *policy == Policy::default())
        {
            return Err(Error::invalid("policy", "it must keep something"));
        }
        self.may_delete(&args.repository).await?;
        let found = self
            .ask(&args.repository, |repository| repository.points())
            .await?;
        let points = select(&found, &args.points, &args.filter)?;
        let now_us = self.manager.clock().now_us();
        let decided = match &args.policy {
            None => points.iter().map(|(id, _)| (*id, Vec::new())).collect(),
            Some(policy) => retain(&points, policy, now_us),
        };
        if !args.dry_run {
            let gone = decided.iter().filter(|(_, reasons)| reasons.is_empty());
            let gone: Vec<Id> = gone.map(|(id, _)| *id).collect();
            self.ask(&args.repository, move |repository| {
                gone.into_iter().try_for_each(|id| repository.forget(id))
            })
            .await?;
        }
        let verdicts = points.iter().zip(decided);
        Ok(verdicts
            .map(|((id, point), (_, reasons))| Verdict {
                point: told::point(*id, point),
                kept_because: reasons.iter().map(because).collect(),
            })
            .collect())
    }
}

fn because(reason: &Reason) -> String {
    let place = |what: &str, number: &u32| format!("{what} {number}");
    match reason {
        Reason::NoPolicy => "no policy".to_owned(),
        Reason::Last(number) => place("last", number),
        Reason::Hourly(number) => place("hourly", number),
        Reason::Daily(number) => place("daily", number),
        Reason::Weekly(number) => place("weekly", number),
        Reason::Monthly(number) => place("monthly", number),
        Reason::Yearly(number) => place("yearly", number),
        Reason::Within => "young enough".to_owned(),
        Reason::Tag(tag) => format!("tag {tag}"),
    }
}
