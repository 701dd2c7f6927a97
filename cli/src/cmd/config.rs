//! `tidemark config`: the configuration file, checked, shown, and taken up by the daemon.

use std::{cell::Cell, path::PathBuf};

use serde_json::{Map, Value, json};
use tidemark_config::{
    Configuration, DEFAULT_PATH, LoadError, Sink, Value as Told,
    calendar::{Verdict, ask_systemd},
};
use tidemark_proto::v1::{ReloadConfigurationRequest, ReloadConfigurationResponse};

use crate::{
    context::Context,
    exit::{Exit, Fault},
    output::counted,
    text::plain,
};

/// What to do with the configuration.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Check a file, and tell all that is wrong with it; asks no daemon
    Check(FileArgs),
    /// Show a file as it is understood, defaults filled in; asks no daemon
    Show(FileArgs),
    /// Have the daemon read its file again. A wrong one changes nothing
    Reload,
}

#[derive(clap::Args, Debug)]
pub(crate) struct FileArgs {
    /// The file
    #[arg(default_value = DEFAULT_PATH)]
    pub(crate) file: PathBuf,
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Check(args) => check(&args, context),
        Command::Show(args) => {
            let read = tidemark_config::load(&args.file).map_err(fault)?;
            context.out.document(&as_json(&read));
            context.out.line(read.to_string().trim_end());
            Ok(())
        }
        Command::Reload => reload(context).await,
    }
}

/// Exit code 1 tells that something is wrong.
fn check(args: &FileArgs, context: &Context) -> anyhow::Result<()> {
    let unchecked = Cell::new(false);
    let calendar = |expression: &str| match ask_systemd(expression) {
        Verdict::Good(_) => Ok(()),
        Verdict::Wrong(why) => Err(why),
        Verdict::Unchecked => {
            unchecked.set(true);
            Ok(())
        }
    };
    let loaded = tidemark_config::load_with(&args.file, &calendar);
    let out = &context.out;
    let file = args.file.display().to_string();
    let problems = match &loaded {
        Ok(_) => Vec::new(),
        Err(LoadError::Wrong(wrong)) => wrong.problems.clone(),
        Err(_) => return loaded.map(drop).map_err(|error| fault(error).into()),
    };
    let place = |one: &tidemark_config::Problem| json!({ "line": one.line, "column": one.column, "message": one.message });
    out.document(&json!({
        "file": file,
        "ok": problems.is_empty(),
        "problems": problems.iter().map(place).collect::<Vec<_>>(),
        "schedules_checked": !unchecked.get(),
    }));
    if unchecked.get() {
        out.note("schedules were looked at plainly only: there is no systemd-analyze here");
    }
    match loaded {
        Ok(read) => {
            out.say(format!("{file}: nothing is wrong; {}", sum(&read)));
            Ok(())
        }
        Err(LoadError::Wrong(wrong)) => {
            wrong.lines().for_each(|line| out.line(plain(&line)));
            Err(Fault::new(
                Exit::Failed,
                format!("{} in {file}", counted(problems.len() as u64, "problem")),
            )
            .into())
        }
        Err(other) => Err(fault(other).into()),
    }
}

fn sum(read: &Configuration) -> String {
    format!(
        "{}, {}, {}",
        counted(read.volumes.len() as u64, "volume"),
        many(read.repositories.len(), "repository", "repositories"),
        counted(read.backups.len() as u64, "schedule"),
    )
}

fn many(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// Why a file cannot be used.
pub(crate) fn fault(error: LoadError) -> Fault {
    let told = Fault::new(Exit::Failed, plain_lines(&error.to_string()));
    match &error {
        LoadError::Wrong(_) => {
            told.advise("mend the file; `tidemark config check` tells whether it is")
        }
        LoadError::Io(_, why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
            Fault::new(Exit::Denied, error.to_string()).advise("run as root")
        }
        LoadError::Missing(_) | LoadError::Io(..) | LoadError::Writable(_) => told,
    }
}

fn plain_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(plain).collect();
    lines.join("\n")
}

async fn reload(context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let request = ReloadConfigurationRequest {};
    let reply = client.agent().reload_configuration(request).await?;
    let reply = reply.into_inner();
    let out = &context.out;
    out.document(&json!({
        "path": reply.path,
        "done": reply.done,
        "failed": reply.failed,
        "left": reply.left,
    }));
    for line in lines(&reply) {
        out.line(line);
    }
    if reply.failed.is_empty() {
        out.say(format!("{} is in force", plain(&reply.path)));
        return Ok(());
    }
    let what = counted(reply.failed.len() as u64, "thing");
    let message = format!("{what} that {} asks for could not be done", reply.path);
    Err(Fault::new(Exit::Partial, plain(&message))
        .advise("the rest is in force; the daemon tries these again")
        .into())
}

fn lines(reply: &ReloadConfigurationResponse) -> Vec<String> {
    let failed = reply
        .failed
        .iter()
        .map(|what| format!("NOT DONE: {}", plain(what)));
    let others = reply.done.iter().chain(&reply.left);
    others.map(|what| plain(what)).chain(failed).collect()
}

/// The tables of a configuration as nested objects.
pub(crate) fn as_json(read: &Configuration) -> Value {
    let mut tree = Tree::default();
    read.tell(&mut tree);
    Value::Object(tree.root)
}

#[derive(Default)]
struct Tree {
    root: Map<String, Value>,
    path: Vec<String>,
}

impl Sink for Tree {
    fn table(&mut self, path: &[&str]) {
        self.path = path.iter().map(|part| (*part).to_owned()).collect();
    }

    fn key(&mut self, key: &str, value: Told<'_>) {
        let mut table = &mut self.root;
        for part in &self.path {
            let below = table.entry(part.clone()).or_insert_with(|| json!({}));
            let Some(below) = below.as_object_mut() else {
                return;
            };
            table = below;
        }
        let value = match value {
            Told::Text(text) => json!(text),
            Told::Number(number) => json!(number),
            Told::Flag(flag) => json!(flag),
            Told::List(words) => json!(words),
        };
        table.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_tables_of_the_file() {
        let text = "\
[volume.data]
device = \"/dev/vg/data\"
area = \"lv\"
[repository.vault]
location = \"/vault\"
[backup.nightly]
volumes = [\"data\"]
repository = \"vault\"
keep = { daily = 7 }
";
        let shown = as_json(&Configuration::parse(text).unwrap());
        assert_eq!(shown["volume"]["data"]["block-size"], "4KiB");
        assert_eq!(shown["volume"]["data"]["hooks"]["required"], true);
        assert_eq!(shown["backup"]["nightly"]["keep"]["daily"], 7);
        assert_eq!(shown["backup"]["nightly"]["volumes"][0], "data");
        assert_eq!(shown["daemon"]["group"], "tidemark");
    }
}
