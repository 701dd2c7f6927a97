//! Starts and reloads, over fake volume servers.

use std::{fs, path::Path, sync::Arc};

use super::*;
use crate::manager::{
    operations::Operations,
    tests::bench::{Bench, count, reason},
};

struct Agent {
    bench: Bench,
    configured: Arc<Configured>,
    manager: Arc<Manager>,
}

impl Agent {
    async fn with(text: impl FnOnce(&Path) -> String) -> Self {
        let bench = Bench::new();
        let manager = bench.start().await;
        let source = Source {
            path: bench.dir.path().join("tidemark.toml"),
            given: true,
        };
        fs::write(&source.path, text(bench.dir.path())).unwrap();
        let operations = Operations::default();
        let backups = Backups::new(Arc::clone(&manager), operations.clone());
        let metrics = Metrics::new(Arc::clone(&manager), backups.clone(), operations, None);
        let read = source.read();
        let configured = Configured::new(Arc::clone(&manager), backups, metrics, source, read);
        Self {
            bench,
            configured: Arc::new(configured),
            manager,
        }
    }

    fn write(&self, text: &str) {
        fs::write(self.bench.dir.path().join("tidemark.toml"), text).unwrap();
    }

    /// `[volume.NAME]`, over a server that runs.
    fn volume(&self, name: &str) -> String {
        let dir = self.bench.dir.path();
        self.bench.fake(name);
        fs::write(dir.join(format!("{name}.img")), b"origin").unwrap();
        volume(dir, name)
    }

    async fn names(&self) -> Vec<String> {
        let volumes = self.manager.volumes().await.unwrap();
        volumes.into_iter().map(|one| one.record.name).collect()
    }
}

fn volume(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    format!(
        "[volume.{name}]\ndevice = \"{dir}/{name}.img\"\narea = \"{dir}/{name}.area\"\narea-size = \"1MiB\"\n"
    )
}

#[tokio::test]
async fn a_new_volume_is_attached_and_an_old_one_is_left() {
    let agent = Agent::with(|_| String::new()).await;
    let (first, second) = (agent.volume("first"), agent.volume("second"));
    agent.write(&first);
    let outcome = agent.configured.reload().await.unwrap();
    assert_eq!(outcome.done, ["volume \"first\" was attached"]);
    assert_eq!((outcome.failed.len(), outcome.left.len()), (0, 0));
    agent.write(&second);
    let outcome = agent.configured.reload().await.unwrap();
    assert_eq!(outcome.done, ["volume \"second\" was attached"]);
    assert!(
        outcome.left[0].contains("`tidemark volume detach first`"),
        "{outcome:?}"
    );
    assert_eq!(agent.names().await, ["first", "second"]);
    // Nothing new.
    let outcome = agent.configured.reload().await.unwrap();
    assert_eq!(outcome, Outcome::default());
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_names_its_lines() {
    let agent = Agent::with(|_| String::new()).await;
    let text = agent.volume("first");
    agent.write(&format!("{text}typo = 1\n"));
    let error = agent.configured.reload().await.unwrap_err();
    assert_eq!(reason(&error), "CONFIGURATION_WRONG");
    assert!(
        error
            .message
            .contains("tidemark.toml:5:1: \"typo\" means nothing"),
        "{error}"
    );
    assert!(agent.names().await.is_empty());
    assert_eq!(agent.configured.standing().wrong.len(), 1);
    assert_eq!(count(&agent.manager, "CONFIGURATION_WRONG").await, 1);
    agent.write(&text);
    agent.configured.reload().await.unwrap();
    assert!(agent.configured.standing().wrong.is_empty());
}

#[tokio::test]
async fn a_start_with_a_wrong_file_goes_on_without_it() {
    let agent = Agent::with(|_| "[volume]\ndata = 1\n".to_owned()).await;
    let following = tokio::spawn(Arc::clone(&agent.configured).follow());
    while count(&agent.manager, "CONFIGURATION_WRONG").await == 0 {
        tokio::task::yield_now().await;
    }
    let standing = agent.configured.standing();
    assert_eq!(standing.loaded_us, None);
    assert!(standing.wrong[0].contains(":2:8: "), "{standing:?}");
    agent.manager.shut_down();
    following.await.unwrap();
}

#[tokio::test]
async fn a_missing_file_is_an_error_only_where_it_was_asked_for() {
    let path = std::path::PathBuf::from("/nonexistent/tidemark.toml");
    let mut source = Source { path, given: false };
    assert_eq!(source.read().unwrap(), Configuration::default());
    source.given = true;
    assert!(matches!(source.read(), Err(LoadError::Missing(_))));
}

#[tokio::test]
async fn what_differs_is_told_and_left() {
    let agent = Agent::with(|_| String::new()).await;
    let text = agent.volume("first");
    agent.write(&text);
    agent.configured.reload().await.unwrap();
    agent.write(&format!(
        "{text}block-size = \"8KiB\"\nwhen-full = \"slow\"\n[daemon]\ngroup = \"x\"\n"
    ));
    let outcome = agent.configured.reload().await.unwrap();
    assert!(
        outcome.left[0].contains("another block-size, when-full than"),
        "{outcome:?}"
    );
    assert!(outcome.left[1].contains("restart"), "{outcome:?}");
}

#[tokio::test]
async fn what_cannot_be_done_stands_in_the_status() {
    let agent = Agent::with(|dir| {
        format!(
            "[repository.vault]\nlocation = \"{}\"\n",
            dir.join("vault").display()
        )
    })
    .await;
    let outcome = agent.configured.reload().await.unwrap();
    assert!(
        outcome.failed[0].contains("`tidemark repo init` makes it"),
        "{outcome:?}"
    );
    assert_eq!(agent.configured.standing().failed, outcome.failed);
}
