//! `tidemark group`: sets of volumes that are cut at one moment.

use clap::Subcommand;
use serde_json::{Value, json};
use tidemark_proto::v1::{CreateGroupRequest, DeleteGroupRequest, Group, ListGroupsRequest};

use crate::{context::Context, json as as_json, select::malformed};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a group
    Create {
        /// The group's name
        name: String,
        /// Volumes that belong to it
        #[arg(required = true, value_name = "VOLUME")]
        volumes: Vec<String>,
    },
    /// Show the groups
    List,
    /// Forget a group; its volumes stay
    Delete {
        /// The group's name
        name: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    let mut groups = context.client().await?.groups();
    let out = &context.out;
    match command {
        Command::Create { name, volumes } => {
            let group = Some(Group { name, volumes });
            let reply = groups.create_group(CreateGroupRequest { group }).await?;
            let group = reply
                .into_inner()
                .group
                .ok_or_else(|| malformed("CreateGroup", "group"))?;
            out.document(&as_json::group(&group));
            out.say(format!(
                "group {} of {}",
                group.name,
                group.volumes.join(", ")
            ));
        }
        Command::List => {
            let groups = groups
                .list_groups(ListGroupsRequest {})
                .await?
                .into_inner()
                .groups;
            out.document(&Value::Array(groups.iter().map(as_json::group).collect()));
            let row = |group: &Group| vec![group.name.clone(), group.volumes.join(", ")];
            out.table(
                &["GROUP", "VOLUMES"],
                &groups.iter().map(row).collect::<Vec<_>>(),
            );
        }
        Command::Delete { name } => {
            groups
                .delete_group(DeleteGroupRequest { name: name.clone() })
                .await?;
            out.document(&json!({ "deleted": name }));
            out.say(format!("group {name} deleted"));
        }
    }
    Ok(())
}
