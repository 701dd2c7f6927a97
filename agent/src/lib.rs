//! Tidemark's agent. ARCHITECTURE.md is the map. Imports go one way:
//! `rpc -> manager -> {server, transport, host}`, `server -> {transport, volume, insertion}`,
//! `insertion -> host`, `rpc -> configuration -> metrics -> backup -> {manager, host, paths}`,
//! `transport -> volume -> disk -> request -> store::units`, `{rpc, server} -> log`.

pub mod argfile;
pub mod backup;
pub mod configuration;
pub mod disk;
pub mod generate;
pub mod host;
pub mod insertion;
pub mod log;
pub mod manager;
pub mod metrics;
pub mod paths;
pub mod request;
pub mod rpc;
pub mod server;
pub mod transport;
pub mod volume;
