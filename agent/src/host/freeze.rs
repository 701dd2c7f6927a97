//! Freezing mounted file systems, with a watchdog that thaws.

/// Arguments of `tidemarkd freeze`.
#[derive(Debug, clap::Args)]
pub struct FreezeArgs {}

/// Runs the freezer.
pub fn run(_args: FreezeArgs) -> anyhow::Result<()> {
    anyhow::bail!("not landed yet")
}
