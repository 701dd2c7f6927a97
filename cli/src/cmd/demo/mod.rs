//! demo
#[derive(clap::Args, Debug)]
pub(crate) struct DemoArgs {}
pub(crate) async fn run(_: DemoArgs, _: &crate::context::Context) -> anyhow::Result<()> { Ok(()) }
