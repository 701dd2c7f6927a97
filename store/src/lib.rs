//! What Tidemark stores: it says where and which bytes, the agent performs the I/O.

pub mod catalog;
pub mod units;
