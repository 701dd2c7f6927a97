//! Which blob is where: a table in memory, and how it is read from a repository.

pub mod fetch;
pub mod load;
pub mod table;

pub use fetch::Fetcher;
pub use load::Loaded;
pub use table::{PackInfo, Place, Table};
