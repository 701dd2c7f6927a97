//! Generated code of Tidemark's protocols; the contracts are the `.proto` files beside it.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

/// The public API, package `tidemark.v1`.
pub mod v1 {
    tonic::include_proto!("tidemark.v1");

    /// Every public file as an encoded descriptor set, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

/// The control plane's protocol with one volume server, package `tidemark.private.v1`.
pub mod private {
    tonic::include_proto!("tidemark.private.v1");
}
