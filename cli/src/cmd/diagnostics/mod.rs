//! `tidemark diagnostics`: one file for whoever helps, without secrets.
//!
//! Parts are gathered one by one; one that cannot be had is noted, and the file is made without it. Everything
//! passes [`redact`] on its way, and the manifest says what is within and what was left out.

mod bundle;
mod gather;
mod journal;
mod redact;
mod system;

use std::path::PathBuf;

use serde_json::json;

use crate::{cmd::doctor::DoctorArgs, context::Context, units};
use bundle::Bundle;
use redact::Secrets;

/// Where to, and from where.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Within are versions, what `doctor` and `status` say, the configuration, volumes' arguments, events, operations, the
kernel's modules and tables, block devices, mounts, this boot's journal of our units, and which files our directories
hold. Left out are keys, passwords, commands that give them, credentials, arguments and output of hooks, labels, and
what URLs carry before their host and after their path. MANIFEST in it says so part by part: read it, and look
through the file before you give it away. Nothing is sent anywhere.")]
pub(crate) struct DiagnosticsArgs {
    /// The file to make, which must not be there yet; without the option, one in this folder that is
    /// named after the host and the time
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    places: DoctorArgs,
}

/// Gathers everything and writes the file.
pub(crate) async fn run(args: DiagnosticsArgs, context: &Context) -> anyhow::Result<()> {
    let now = units::now();
    let path = args.output.clone().unwrap_or_else(|| named(now));
    // Before the work, so that a file that is there already costs nothing.
    let bundle = Bundle::create(&path, now)?;
    let overview = gather::overview(&args.places, context).await;
    let secrets = Secrets::of(&overview);
    let parts = gather::parts(&args.places, &overview, &secrets, context).await;
    let failed = parts.iter().filter(|part| part.content.is_err()).count();
    let bytes = bundle.write(&parts)?;
    let out = &context.out;
    out.document(&json!({
        "file": path.display().to_string(),
        "bytes": bytes,
        "parts": parts.iter().map(bundle::Part::json).collect::<Vec<_>>(),
    }));
    out.line(format!(
        "{}: {} in {} parts",
        path.display(),
        units::bytes(bytes),
        parts.len() - failed
    ));
    if failed > 0 {
        out.note(format!(
            "{failed} parts could not be had; MANIFEST in it says why"
        ));
    }
    out.say(format!(
        "no secrets that are known as such are in it; look through it before you give it away: tar --zstd -tf {}",
        path.display()
    ));
    Ok(())
}

/// In this folder.
fn named(now: u64) -> PathBuf {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .collect();
    let at = units::moment(now).replace(['-', ':'], "");
    PathBuf::from(format!("tidemark-diagnostics-{host}-{at}.tar.zst"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_after_host_and_time() {
        let name = named(1_000_000_000).display().to_string();
        assert!(name.starts_with("tidemark-diagnostics-"), "{name}");
        assert!(name.ends_with("-20010909T014640Z.tar.zst"), "{name}");
    }
}
