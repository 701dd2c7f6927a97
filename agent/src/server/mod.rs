//! The volume server: one small process a volume.

pub mod wire;

/// Arguments of `tidemarkd volume`.
#[derive(Debug, clap::Args)]
pub struct VolumeArgs {}

/// Runs the volume server.
pub fn run(_args: VolumeArgs) -> anyhow::Result<()> {
    anyhow::bail!("not landed yet")
}
