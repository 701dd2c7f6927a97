//! `tidemark events`: what happened, and what happens now.

use tidemark_proto::v1::{Event, Severity, WatchEventsRequest};

use crate::{context::Context, json};

#[derive(clap::Args, Debug)]
pub(crate) struct EventsArgs {
    /// Go on with new events as they happen
    #[arg(long, short)]
    follow: bool,
    /// Only those of this volume
    #[arg(long)]
    volume: Option<String>,
    /// Only those after this sequence number
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
}

/// Prints events until there are no more, or for ever with `--follow`.
pub(crate) async fn run(args: EventsArgs, context: &Context) -> anyhow::Result<()> {
    let request = WatchEventsRequest {
        after_sequence: args.after,
        volume: args.volume.unwrap_or_default(),
        no_follow: !args.follow,
    };
    let mut events = context.client().await?.events();
    let mut stream = events.watch_events(request).await?.into_inner();
    while let Some(reply) = stream.message().await? {
        let Some(event) = reply.event else { continue };
        context.out.document(&json::event(&event));
        context.out.line(line(&event));
        if context.out.closed() {
            break;
        }
    }
    Ok(())
}

/// One event as a line.
pub(crate) fn line(event: &Event) -> String {
    let at = event.at.as_ref().map(ToString::to_string);
    let mark = match Severity::try_from(event.severity) {
        Ok(Severity::Error) => "ERROR ",
        Ok(Severity::Warning) => "WARNING ",
        Ok(Severity::Info | Severity::Unspecified) | Err(_) => "",
    };
    let volume = match event.volume.as_str() {
        "" => String::new(),
        name => format!("{name}: "),
    };
    format!(
        "{:>6} {} {mark}{} {volume}{}",
        event.sequence,
        at.unwrap_or_default(),
        json::event_kind(event.kind),
        event.message
    )
}
