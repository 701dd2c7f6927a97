//! A repository's objects. All of them have one form only: what decodes is what was encoded, byte for
//! byte.

use std::fmt::Debug;

use tidemark_store::{
    repository::{
        Blob, Digest, Made, Point, Trust, Work,
        crypto::{Credential, KdfCost, Naming, Secret, lock::KeySlot},
        format::{
            blob::{Decoder, Encoder},
            condemned::Condemned,
            config::Config,
            envelope::{Kind, Vault, unwrap_plain, wrap_plain},
            index::{self, PackList},
            node::{Branch, Leaf, Node, Run},
            pack::{
                Entry, HEADER_BYTES, TRAILER_BYTES, footer, header, pack_bytes, parse_footer,
                parse_trailer,
            },
        },
        limits::MAX_CHUNK_BYTES,
    },
    units::{Epoch, Id},
};
use zeroize::Zeroizing;

const REPOSITORY: Id = Id([5; 16]);
const SALT: [u8; 16] = [6; 16];

fn vault() -> Vault {
    Vault {
        repository: REPOSITORY,
        naming: Naming::Plain,
    }
}

/// What decodes has no other form.
fn one_form<T: Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    if let Some(read) = decode(bytes) {
        assert_eq!(encode(&read), bytes, "{read:?} has two forms");
    }
}

pub(crate) fn node(bytes: &[u8]) {
    one_form(bytes, Node::decode, Node::encode);
}

pub(crate) fn nodes() -> Vec<Vec<u8>> {
    let run = |at, blocks, chunk, start| Run {
        at,
        blocks,
        chunk,
        start,
    };
    let leaf = Leaf {
        chunks: vec![Digest([1; 32]), Digest([2; 32])],
        runs: vec![run(0, 3, 0, 0), run(3, 1, 1, 200), run(900, 100, 0, 4)],
    };
    let mut branch = Branch::new(3);
    branch.children[2] = Digest([3; 32]);
    vec![
        Node::Leaf(leaf).encode(),
        Node::Branch(Box::new(branch)).encode(),
    ]
}

pub(crate) fn point(bytes: &[u8]) {
    one_form(bytes, Point::decode, Point::encode);
}

pub(crate) fn points() -> Vec<Vec<u8>> {
    let point = Point {
        root: Digest([1; 32]),
        capacity: 1 << 30,
        block_bytes: 4096,
        created_us: 1,
        volume: Id([2; 16]),
        lineage: Id([3; 16]),
        epoch: Epoch(4),
        snapshot: Id([5; 16]),
        base: Id::NIL,
        made: Made::Full("the first".into()),
        trust: Trust::Superset,
        work: Work::default(),
        host: "host".into(),
        name: "volume".into(),
        tags: vec!["a".into(), "b".into()],
    };
    let next = Point {
        base: Id([6; 16]),
        made: Made::Incremental,
        tags: Vec::new(),
        ..point.clone()
    };
    vec![point.encode(), next.encode()]
}

fn entries() -> Vec<Entry> {
    let entry = |id, kind, compressed, stored_bytes, plain_bytes| Entry {
        id: Digest([id; 32]),
        kind,
        compressed,
        stored_bytes,
        plain_bytes,
    };
    vec![
        entry(1, Blob::Chunk, true, 100, 8192),
        entry(2, Blob::Chunk, false, 4096, 4096),
        entry(3, Blob::Node, false, 70, 70),
    ]
}

pub(crate) fn an_index(bytes: &[u8]) {
    for sealed in [false, true] {
        one_form(
            bytes,
            |bytes| index::decode(bytes, sealed),
            |packs| index::encode(packs),
        );
    }
}

pub(crate) fn indexes() -> Vec<Vec<u8>> {
    let list = |pack| PackList {
        pack: Digest([pack; 32]),
        salt: SALT,
        entries: entries(),
    };
    vec![index::encode(&[list(1), list(2)])]
}

/// The input is a footer's entries, with their checksum or without.
pub(crate) fn pack(bytes: &[u8]) {
    let (vault, header) = (vault(), header(&vault(), SALT));
    let around = (HEADER_BYTES + TRAILER_BYTES + bytes.len()) as u64;
    for pack in [around, around + 100] {
        drop(parse_footer(&vault, pack, &header, bytes));
        drop(parse_footer(&vault, pack, bytes, bytes));
        if let Ok(len) = parse_trailer(pack, bytes) {
            assert!(u64::from(len) <= pack);
        }
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header).update(bytes);
    let whole = [bytes, &hasher.finalize().as_bytes()[..16]].concat();
    // The length that it must have follows from its own entries.
    let stored = bytes.chunks_exact(41).map(|entry| {
        let stored = entry[33..37].iter().rev();
        stored.fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    });
    let len = around + 16 + stored.sum::<u64>();
    if let Ok(entries) = parse_footer(&vault, len, &header, &whole) {
        assert_eq!(pack_bytes(&entries), len);
        let again = footer(&vault, &header, SALT, &entries);
        assert_eq!(again[..whole.len()], whole);
    }
}

pub(crate) fn packs() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    entries().iter().for_each(|entry| entry.encode(&mut bytes));
    let vault = vault();
    let whole = footer(&vault, &header(&vault, SALT), SALT, &entries());
    vec![bytes, whole, header(&vault, SALT)]
}

/// The input is an object, or the body of one, by its first byte's kind.
pub(crate) fn object(bytes: &[u8]) {
    let id = Some(Id([7; 16]));
    for kind in [Kind::Config, Kind::Key, Kind::Condemned] {
        drop(unwrap_plain(kind, None, id, bytes));
        drop(vault().unwrap(kind, id, "object", bytes));
        let whole = wrap_plain(kind, REPOSITORY, id, bytes);
        let body = unwrap_plain(kind, Some(REPOSITORY), id, &whole);
        assert_eq!(body.as_deref(), Ok(bytes));
    }
    drop(Config::decode(bytes));
    drop(Config::decode(&wrap_plain(
        Kind::Config,
        Id::NIL,
        None,
        bytes,
    )));
    one_form(bytes, KeySlot::decode, KeySlot::encode);
    one_form(bytes, Condemned::decode, Condemned::encode);
}

pub(crate) fn objects() -> Vec<Vec<u8>> {
    let config = Config {
        repository: REPOSITORY,
        created_us: 1,
        encrypted: false,
    };
    let condemned = Condemned {
        by: "host".into(),
        said_us: 1,
        grace_seconds: 3600,
        packs: vec![Digest([1; 32]), Digest([2; 32])],
    };
    let file = Credential::KeyFile(Zeroizing::new(vec![1; 32]));
    let slot = KeySlot::lock(&Secret::new([8; 32]), &file, KdfCost::default());
    let slot = slot.expect("a key file locks a key").encode();
    vec![config.encode(None), condemned.encode(), slot]
}

/// The input is a frame; what it decodes to has the length that was asked for.
pub(crate) fn blob(bytes: &[u8]) {
    let mut decoder = Decoder::new().expect("memory for a decoder");
    let mut plain = Vec::new();
    for len in [4096, MAX_CHUNK_BYTES] {
        if decoder.decompress(bytes, len, &mut plain).is_ok() {
            assert_eq!(plain.len(), len);
        }
    }
}

pub(crate) fn blobs() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new().expect("memory for an encoder");
    let plain: Vec<u8> = (0..4096_u32).flat_map(|n| (n / 64).to_le_bytes()).collect();
    let mut frame = Vec::new();
    let frames = [&plain[..4096], &plain[..]].map(|plain| {
        let frame = encoder.compress(plain, &mut frame);
        frame.expect("such bytes compress").to_vec()
    });
    frames.to_vec()
}
