//! The gRPC API: converts, calls the manager, converts back.

/// Arguments of `tidemarkd serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}

/// Runs the control plane.
pub fn serve(_args: ServeArgs) -> anyhow::Result<()> {
    anyhow::bail!("not landed yet")
}
