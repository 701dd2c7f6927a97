//! What a configuration asks for and is not there: metrics are served, volumes attached, repositories added.

use tidemark_config::Configuration;

use super::{Configured, Outcome, repository};
use crate::manager::{AttachArgs, Error, differences};

impl Configured {
    /// Does what can be done. What `before` named and `now` does not is told with what removes it.
    pub(super) async fn reconcile(&self, now: &Configuration, before: &Configuration) -> Outcome {
        let mut outcome = Outcome::default();
        let listened = self.metrics.listen(now.daemon.metrics).await;
        outcome.done.extend(listened.done);
        outcome.failed.extend(listened.failed);
        let volumes = self.volumes(now, before, &mut outcome).await;
        if let Err(error) = volumes {
            outcome.failed.push(format!("volumes: {}", error.message));
        }
        let repositories = self.repositories(now, before, &mut outcome).await;
        if let Err(error) = repositories {
            outcome
                .failed
                .push(format!("repositories: {}", error.message));
        }
        outcome
    }

    async fn volumes(
        &self,
        now: &Configuration,
        before: &Configuration,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let attached = self.manager.volumes().await?;
        for (name, wanted) in &now.volumes {
            let Some(there) = attached.iter().find(|one| one.record.name == *name) else {
                match self
                    .manager
                    .attach(AttachArgs::configured(name, wanted))
                    .await
                {
                    Ok(_) => outcome.done.push(format!("volume \"{name}\" was attached")),
                    Err(error) => outcome.failed.push(format!(
                        "volume \"{name}\" could not be attached: {}",
                        error.message
                    )),
                }
                continue;
            };
            let differing = differences(&there.record, wanted);
            if !differing.is_empty() {
                outcome.left.push(format!(
                    "volume \"{name}\" is attached with another {} than the file says: `tidemark volume detach \
                     {name}`, then `tidemark config reload`; its tracking starts anew then",
                    differing.join(", ")
                ));
            }
        }
        for name in before
            .volumes
            .keys()
            .filter(|name| !now.volumes.contains_key(*name))
        {
            if attached.iter().any(|one| one.record.name == *name) {
                outcome.left.push(format!(
                    "volume \"{name}\" is no longer named and stays attached: `tidemark volume detach {name}` \
                     takes it away"
                ));
            }
        }
        Ok(())
    }

    async fn repositories(
        &self,
        now: &Configuration,
        before: &Configuration,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let known = self.backups.list().await?;
        for (name, wanted) in &now.repositories {
            let wanted = match repository::wanted(name, wanted) {
                Ok(wanted) => wanted,
                Err(error) => {
                    outcome
                        .failed
                        .push(format!("repository \"{name}\": {}", error.message));
                    continue;
                }
            };
            let Some(there) = known.iter().find(|one| one.name == *name) else {
                let place = wanted.location.text();
                match self.backups.add(wanted).await {
                    Ok(_) => outcome.done.push(format!("repository \"{name}\" is known now")),
                    Err(error) => outcome.failed.push(format!(
                        "repository \"{name}\" at {place} could not be added: {}; if it is to be made there, \
                         `tidemark repo init` makes it",
                        error.message
                    )),
                }
                continue;
            };
            if !repository::same(there, &wanted) {
                outcome.left.push(format!(
                    "repository \"{name}\" is known with another place or key than the file says: `tidemark \
                     repo remove {name}`, then `tidemark config reload`; what it holds stays"
                ));
            }
        }
        for name in before.repositories.keys() {
            let gone = !now.repositories.contains_key(name);
            if gone && known.iter().any(|one| one.name == *name) {
                outcome.left.push(format!(
                    "repository \"{name}\" is no longer named and stays known: `tidemark repo remove {name}` \
                     forgets it; what it holds stays"
                ));
            }
        }
        Ok(())
    }
}
