//! Planned hand-over: a volume goes on with the server that is installed now.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::{
    Error, Manager, Volume,
    detach::ends_within,
    registry::{Entry, Health},
    validate,
};

/// How long the new program may take to say what it is.
const SELF_TEST: Duration = Duration::from_secs(20);
/// How long the old server may take to end, and the new one to serve.
const END_WITHIN: Duration = Duration::from_secs(30);
const SERVED_WITHIN: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(10);

impl Manager {
    /// Ends the server of a volume and waits for the next. Gives the volume, and for how long the
    /// host's requests waited at most.
    pub async fn hand_over(self: &Arc<Self>, name: &str) -> Result<(Volume, Duration), Error> {
        validate::name("name", name)?;
        let (manager, name) = (Arc::clone(self), name.to_owned());
        self.to_its_end(async move { manager.hand_over_now(&name).await })
            .await
    }

    async fn hand_over_now(&self, name: &str) -> Result<(Volume, Duration), Error> {
        let (entry, work) = self.claim(name).await?;
        let before = self.describe(&entry).await?.pid;
        can_run(&self.config.program).await?;
        entry.expect_restart(true);
        let begun = Instant::now();
        if let Err(error) = entry.link.hand_over().await {
            entry.expect_restart(false);
            return Err(error.on_volume(name));
        }
        if !ends_within(&entry, END_WITHIN).await {
            let why = format!("it was to hand over, but has not ended within {END_WITHIN:?}");
            return Err(Error::unavailable(name, why));
        }
        // Whoever looks after the volume needs it to start the next.
        drop(work);
        served_after(&entry, before).await?;
        let paused = begun.elapsed();
        Ok((self.merged(&entry).await, paused))
    }
}

/// A program that does not even start must not cost the server that works.
async fn can_run(program: &Path) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let why = match timeout(SELF_TEST, command.kill_on_drop(true).status()).await {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {SELF_TEST:?}"),
    };
    let program = program.display();
    Err(Error::internal(format!(
        "{program} does not run ({why}); the volume stays with its server"
    )))
}

async fn served_after(entry: &Entry, before: i32) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match entry.link.hello().await {
            Ok(greeting) if greeting.pid != before => return Ok(()),
            _ => {}
        }
        let why = match entry.health() {
            Health::FellBack(why) => why,
            Health::Down(why) if begun.elapsed() >= SERVED_WITHIN => why,
            _ if begun.elapsed() >= SERVED_WITHIN => "the next server does not answer".to_owned(),
            _ => {
                sleep(STEP).await;
                continue;
            }
        };
        return Err(Error::unavailable(entry.name(), why));
    }
}
