//! Compiles the protocol files with protox, so that no protoc is needed.

use std::{env, fs, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "tidemark/v1/common.proto",
    "tidemark/v1/agent.proto",
    "tidemark/v1/volume.proto",
    "tidemark/v1/group.proto",
    "tidemark/v1/snapshot.proto",
    "tidemark/v1/checkpoint.proto",
    "tidemark/v1/change.proto",
    "tidemark/v1/data.proto",
    "tidemark/v1/restore.proto",
    "tidemark/v1/job.proto",
    "tidemark/v1/operation.proto",
    "tidemark/v1/repository.proto",
    "tidemark/v1/event.proto",
    "private/v1/volume_server.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=tidemark");
    println!("cargo:rerun-if-changed=private");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
