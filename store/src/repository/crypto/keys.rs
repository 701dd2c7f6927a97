//! One key a purpose, and the ids that need one.

use super::secret::Secret;
use crate::repository::id::{Blob, Digest};

/// The context of a node's id where nothing is encrypted.
const PLAIN_NODE: &str = "tidemark repository v1 node";

/// What follows from a master key.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Seals blobs and objects.
    pub encryption: Secret,
    /// Signs the configuration.
    pub configuration: Secret,
    chunk_id: Secret,
    node_id: Secret,
}

impl Keys {
    /// The subkeys of `master`.
    pub fn new(master: &Secret) -> Self {
        Self {
            encryption: master.derive("tidemark repository v1 encryption"),
            configuration: master.derive("tidemark repository v1 configuration"),
            chunk_id: master.derive("tidemark repository v1 chunk id"),
            node_id: master.derive("tidemark repository v1 node id"),
        }
    }
}

/// How blobs get their ids.
#[derive(Clone, Debug)]
pub enum Naming {
    /// Anybody can compute them.
    Plain,
    /// They tell nothing without the key.
    Keyed(Keys),
}

impl Naming {
    /// The id of a blob with these plain bytes.
    pub fn id(&self, kind: Blob, plain: &[u8]) -> Digest {
        let hash = match (self, kind) {
            (Self::Plain, Blob::Chunk) => blake3::hash(plain),
            (Self::Plain, Blob::Node) => {
                return Digest(blake3::derive_key(PLAIN_NODE, plain));
            }
            (Self::Keyed(keys), Blob::Chunk) => blake3::keyed_hash(keys.chunk_id.expose(), plain),
            (Self::Keyed(keys), Blob::Node) => blake3::keyed_hash(keys.node_id.expose(), plain),
        };
        Digest(*hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_and_a_chunk_of_the_same_bytes_are_two() {
        let keyed = Naming::Keyed(Keys::new(&Secret::new([1; 32])));
        let other = Naming::Keyed(Keys::new(&Secret::new([2; 32])));
        let mut ids: Vec<_> = [Naming::Plain, keyed, other]
            .iter()
            .flat_map(|naming| [Blob::Chunk, Blob::Node].map(|kind| naming.id(kind, b"same")))
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }
}
