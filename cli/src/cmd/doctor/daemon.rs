//! What the daemon knows, and which volumes are served.

use std::{path::Path, time::Duration};

use tidemark_proto::v1::{Feature, ListPointsRequest, Repository};
use tokio::time::timeout;

use super::check::Check;
use crate::{
    client::Client,
    cmd::status::{
        attention,
        overview::{Overview, Told},
    },
    context::Context,
    exit::Report,
    host::served,
    output::counted,
    units,
};

/// For a repository to be opened and listed.
const REPOSITORY_WITHIN: Duration = Duration::from_secs(60);

/// Volumes, and where the daemon answers its features, its repositories, and with a file that is right
/// what of it is not in force.
pub(super) async fn checks(
    overview: &Overview,
    file_is_right: bool,
    context: &Context,
) -> Vec<Check> {
    let mut checks = volumes(overview);
    let Some(told) = overview.told() else {
        return checks;
    };
    checks.extend(told.info.features.iter().map(feature));
    checks.extend(attached(overview, told));
    if file_is_right {
        let problems = attention::of_configuration(told).into_iter();
        checks.extend(problems.map(|one| Check::missing("configuration", one.what, one.next)));
    }
    if let Ok(client) = context.client().await {
        for one in &told.repositories {
            checks.push(repository(&client, one).await);
        }
    }
    checks
}

/// Volumes that systemd starts, by what the host itself tells of them.
fn volumes(overview: &Overview) -> Vec<Check> {
    let ours = overview.local.iter();
    ours.filter_map(served).collect()
}

fn served(volume: &served::Volume) -> Option<Check> {
    let name = format!("volume {}", volume.name);
    let unit = format!("tidemark-volume@{}.service", volume.name);
    let log = format!("journalctl -b -u {unit}");
    let outcome = volume.outcome.as_ref();
    let failure = outcome.and_then(|one| Some((one.at, one.failure.as_ref()?)));
    if volume.served {
        return Some(Check::ok(name, "its server runs"));
    }
    if let Some((at, (reason, message))) = failure {
        let at = units::moment(at);
        let detail = format!("its server did not start at {at}: {reason}: {message}");
        return Some(Check::missing(name, detail, log));
    }
    let unit_of = volume.unit?;
    let detail = match unit_of.early {
        true => {
            "it is to be served before file systems are mounted, and was not taken up at this boot"
        }
        false => "its server does not run",
    };
    let mend = format!("systemctl start {unit}; {log}");
    Some(Check::missing(name, detail, mend))
}

fn feature(feature: &Feature) -> Check {
    match feature.available {
        true => Check::ok(&feature.name, "the daemon can do it"),
        // The reason has what mends it.
        false => Check::advice(
            &feature.name,
            "the daemon cannot do it",
            feature.reason.clone(),
        ),
    }
}

/// What `tidemark status` says of volumes.
fn attached(overview: &Overview, told: &Told) -> Vec<Check> {
    let volumes = told.volumes.iter();
    volumes
        .flat_map(|volume| attention::of_volume(overview, volume))
        .map(|one| Check::missing("volumes", one.what, one.next))
        .collect()
}

/// Opens it with its key, and lists it.
async fn repository(client: &Client, repository: &Repository) -> Check {
    let name = format!("repository {}", repository.name);
    // The daemon finds nothing in a folder that is gone, which is no error.
    let place = Path::new(&repository.location);
    if place.is_absolute() && !place.is_dir() {
        let place = place.display();
        let detail = format!("{place} is not there");
        return Check::missing(name, detail, format!("ls -ld {place}; mount what it is on"));
    }
    let request = ListPointsRequest {
        repository: repository.name.clone(),
        ..Default::default()
    };
    let mut calls = client.repositories();
    let asked = timeout(REPOSITORY_WITHIN, calls.list_points(request)).await;
    let mend = format!("tidemark snapshots {}", repository.name);
    match asked {
        Err(_) => {
            let within = units::span(REPOSITORY_WITHIN);
            Check::missing(name, format!("it does not answer within {within}"), mend)
        }
        Ok(Err(status)) => {
            let report = Report::of(&status.into());
            let advice = report.advice().map_or(mend, ToOwned::to_owned);
            Check::missing(name, report.message, advice)
        }
        Ok(Ok(reply)) => {
            let reply = reply.into_inner();
            let points = counted(reply.points.len() as u64, "recovery point");
            match reply.damaged.len() {
                0 => Check::ok(name, points),
                damaged => Check::missing(
                    name,
                    format!("{points}, and {damaged} that are damaged"),
                    format!("tidemark check {}", repository.name),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Level, *};
    use crate::host::served::{Outcome, Unit, Volume};

    #[test]
    fn an_early_volume_that_was_not_taken_up_is_told() {
        let mut volume = Volume {
            name: "home".to_owned(),
            unit: Some(Unit { early: true }),
            ..Volume::default()
        };
        let check = served(&volume).unwrap();
        assert!(check.detail.contains("not taken up at this boot"));
        assert!(
            check
                .mend
                .starts_with("systemctl start tidemark-volume@home.service;")
        );
        volume.outcome = Some(Outcome {
            at: 1_000_000_000,
            failure: Some(("UNSUPPORTED".to_owned(), "no ublk here".to_owned())),
        });
        let check = served(&volume).unwrap();
        assert_eq!(check.level, Level::Missing);
        assert_eq!(
            check.detail,
            "its server did not start at 2001-09-09T01:46:40Z: UNSUPPORTED: no ublk here"
        );
        volume.served = true;
        assert_eq!(served(&volume).unwrap().level, Level::Ok);
        // Nobody promised to serve it.
        assert_eq!(served(&Volume::default()), None);
    }
}
