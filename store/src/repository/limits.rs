//! What an object of a repository may be at most. Stored lengths and counts are held against these
//! before anything is read or allocated for them.

/// The unit of the image, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Most blocks of a chunk: 1 MiB. A reader of 4 KiB decodes one chunk, which takes about a millisecond.
pub const MAX_CHUNK_BLOCKS: u32 = 256;
/// Most plain bytes of a chunk.
pub const MAX_CHUNK_BYTES: usize = BLOCK_BYTES * MAX_CHUNK_BLOCKS as usize;
/// Blocks of the image that a leaf covers: 4 MiB. Smaller leaves make an incremental of scattered
/// writes smaller, larger ones make the tree of a full image smaller; here both cost under 1 %.
pub const LEAF_BLOCKS: u32 = 1024;
/// Children of a branch. A changed leaf rewrites one branch a level, each of at most 516 bytes.
pub const FAN_OUT: usize = 16;
/// Height of the highest root: 2^22 bytes a leaf, 2^4 times as much a level, 2^60 bytes an image.
pub const MAX_HEIGHT: u8 = 10;
/// Most plain bytes of a node. A leaf of 1,024 single blocks in as many chunks has 32 KiB of ids and
/// under 8 KiB of runs.
pub const MAX_NODE_BYTES: usize = 48 << 10;

/// A pack is closed when it has so many stored bytes: few objects.
pub const PACK_TARGET_BYTES: usize = 16 << 20;
/// Packs that a session stores at the same time. Each is in memory, and once more where the storage's client
/// copies it: with the two that fill, 140 MiB at most.
pub const MAX_STORING: usize = 3;
/// Threads of a job. One that compresses needs 5 MiB, one that restores 8 MiB.
pub const MAX_THREADS: usize = 12;
/// Largest pack: the target, a chunk that does not compress, and the footer, with room for another
/// target in later versions.
pub const MAX_PACK_BYTES: u64 = 64 << 20;
/// Most blobs of a pack; 41 bytes each in the footer.
pub const MAX_PACK_ENTRIES: u32 = 1 << 18;
/// Most bytes of an index: 48 packs with all the entries that 64 MiB have room for.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;
/// An index is closed when it has so many entries (about 2.6 MiB).
pub const INDEX_TARGET_ENTRIES: usize = 1 << 16;

/// Most bytes of a point, a condemnation's head, a configuration or a key.
pub const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Most bytes of a condemnation: half a million packs, 8 TiB stored.
pub const MAX_CONDEMNED_BYTES: u64 = 16 << 20;
/// Longest text in a record, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Most tags of a point.
pub const MAX_TAGS: usize = 64;

/// Argon2id: no key may ask for more memory than this, in KiB (1 GiB).
pub const MAX_KDF_MEMORY_KIB: u32 = 1 << 20;
/// Argon2id: most passes.
pub const MAX_KDF_PASSES: u32 = 16;
/// Argon2id: most lanes.
pub const MAX_KDF_LANES: u32 = 8;
/// A key file has at least so many bytes,
pub const MIN_KEY_FILE_BYTES: usize = 32;
/// and at most so many.
pub const MAX_KEY_FILE_BYTES: usize = 64 << 10;

/// The least grace between condemning a pack and deleting it, in seconds; a quarter of it is what a backup
/// has from its last look at condemnations to its point, and another what the storage's clock may run back.
pub const MIN_GRACE_SECONDS: u64 = 3600;
