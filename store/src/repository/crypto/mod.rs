//! Secrets and what they do: ids that tell nothing, blobs and objects that nobody else reads or forges.
//!
//! One master key a repository. Subkeys follow from it, one a purpose ([`Keys`]); key objects hold it
//! under passwords and key files ([`lock`]).

pub mod cipher;
pub mod keys;
pub mod lock;
pub mod secret;

pub use keys::{Keys, Naming};
#[cfg(test)]
pub(crate) use lock::cheap;
pub use lock::{Credential, KdfCost};
pub use secret::Secret;
