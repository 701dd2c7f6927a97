//! The live view: looks again and again, and draws what it saw in the place of what it saw before.

pub(super) mod frame;
pub(super) mod rates;
mod screen;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    StatusArgs, attention,
    overview::{Memory, Overview},
};
use crate::{context::Context, json as as_json};
use frame::Seen;
use rates::Samples;
use screen::Screen;

/// Draws until the reader goes away or Ctrl-C comes, which is how it is meant to end.
pub(super) async fn run(args: &StatusArgs, context: &Context) -> anyhow::Result<()> {
    let interval = Duration::from_secs(args.interval.into());
    let mut resized = signal(SignalKind::window_change())?;
    let screen = Screen::open(&context.out);
    let mut memory = Memory::default();
    let mut samples = Samples::default();
    while !context.out.closed() {
        let overview = tokio::select! {
            biased;
            () = context.interrupt.wait() => break,
            overview = Overview::gather(args, context, &mut memory) => overview,
        };
        let volumes = overview.told().map_or(&[][..], |told| &told.volumes);
        samples.take(Instant::now(), volumes);
        let seen = Seen {
            attention: &attention::of(&overview),
            overview: &overview,
            samples: &samples,
            events: memory.events.make_contiguous(),
            interval,
        };
        context.out.document(&json_of(&seen));
        let lines = frame::lines(&seen);
        let pause = sleep(interval);
        tokio::pin!(pause);
        screen.draw(&lines, &context.out);
        loop {
            tokio::select! {
                biased;
                () = context.interrupt.wait() => return Ok(()),
                Some(()) = resized.recv() => screen.redraw(&lines, &context.out),
                () = &mut pause => break,
            }
        }
    }
    Ok(())
}

/// What `status --json` has, with rates and the latest events.
fn json_of(seen: &Seen<'_>) -> Value {
    let mut all = seen.overview.json();
    all["at"] = json!(crate::units::moment(seen.overview.now));
    all["rates"] = seen.samples.json();
    all["events"] = seen.events.iter().map(as_json::event).collect();
    all
}
