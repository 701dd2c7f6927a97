//! Detaching and handing over: one volume, or every one.

use serde_json::json;
use tidemark_proto::v1::{DetachVolumeRequest, HandOverVolumeRequest};

use crate::{
    client::Client,
    context::Context,
    exit::{Exit, Fault, Report},
    json as as_json,
    select::malformed,
    units,
};

use super::list;

/// Which volumes a command is about.
#[derive(clap::Args, Debug)]
pub(crate) struct Which {
    /// The volume
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// Every volume: those that fail are told of, and the others are done all the same
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl Which {
    /// Does it. Of several, what was not `done` ends the command as done in part.
    pub(super) async fn each<F: Future<Output = anyhow::Result<()>>>(
        self,
        done: &str,
        client: &Client,
        context: &Context,
        act: impl Fn(String) -> F,
    ) -> anyhow::Result<()> {
        if let Some(name) = self.name {
            return act(name).await;
        }
        let all = list(client).await?;
        let mut failed = Vec::new();
        for volume in &all {
            if let Err(error) = act(volume.name.clone()).await {
                Report::of(&error).print(context.out.is_json());
                failed.push(volume.name.as_str());
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let exit = if failed.len() < all.len() {
            Exit::Partial
        } else {
            Exit::Failed
        };
        let what = format!("not {done}: {}", failed.join(", "));
        Err(Fault::new(exit, what).into())
    }
}

/// Takes the interposer of one away.
pub(super) async fn detach(
    name: String,
    force: bool,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    let request = DetachVolumeRequest {
        name: name.clone(),
        force,
    };
    client.volumes().detach_volume(request).await?;
    context.out.document(&json!({ "detached": name }));
    context.out.say(format!("volume {name} detached"));
    Ok(())
}

/// Has the server that is installed now go on with one.
pub(super) async fn hand_over(
    name: String,
    client: &Client,
    context: &Context,
) -> anyhow::Result<()> {
    let request = HandOverVolumeRequest { name };
    let answer = client.volumes().hand_over_volume(request).await?;
    let answer = answer.into_inner();
    let volume = answer
        .volume
        .ok_or_else(|| malformed("HandOverVolume", "volume"))?;
    let paused = units::from_proto(&answer.paused.unwrap_or_default());
    let mut document = as_json::volume(&volume);
    document["paused_seconds"] = json!(paused.as_secs_f64());
    context.out.document(&document);
    context.out.say(format!(
        "volume {}: served by process {}; writes waited for at most {:.3} s",
        volume.name,
        volume.server_pid,
        paused.as_secs_f64()
    ));
    Ok(())
}
