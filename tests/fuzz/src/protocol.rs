//! What comes over sockets and pipes: the private protocol, restored extents, the word of a start.

use std::fmt::Debug;

use prost::{Message, bytes::Bytes};
use tidemark_agent::{
    manager::{
        checked_page,
        restores::{MAX_DATA_EXTENT_BYTES, recheck},
    },
    server::{outcome::Outcome, wire},
};
use tidemark_proto::{
    private::{
        Changes, ExtentPage, Hello, Hold, Range, RangeKind, Reply, Request,
        reply::Result as Answer, request::Call,
    },
    v1::{Compression, DataExtent, ExtentKind},
};

/// Reads messages until the input ends or is none; each is written and read again.
fn messages<M: Message + Default + PartialEq + Debug>(bytes: &[u8], mut look: impl FnMut(&M)) {
    let mut from = bytes;
    loop {
        let prefix = wire::decode_length(from);
        let Ok(Some(message)) = wire::read::<M>(&mut from) else {
            return;
        };
        assert!(
            matches!(prefix, Ok(Some((len, _))) if len <= wire::MAX_MESSAGE_BYTES),
            "both sides read the length alike"
        );
        let again = wire::encode(&message).expect("it was short enough before");
        let mut again = again.as_slice();
        let read = wire::read::<M>(&mut again).expect("we wrote it");
        assert_eq!(read.as_ref(), Some(&message));
        look(&message);
    }
}

pub(crate) fn requests(bytes: &[u8]) {
    messages::<Request>(bytes, |_| {});
}

pub(crate) fn replies(bytes: &[u8]) {
    messages::<Reply>(bytes, |reply| {
        if let Some(Answer::Extents(page)) = &reply.result {
            page_is_sound(page);
        }
    });
}

/// A page that is believed ascends, and leads on.
fn page_is_sound(page: &ExtentPage) {
    let Some(checked) = checked_page(page, 4096) else {
        return;
    };
    assert!(checked.next.is_none_or(|next| next > 4096));
    let mut end = 0;
    for extent in &checked.extents {
        assert!(extent.range.offset >= end && extent.range.len > 0);
        end = extent.range.end();
    }
}

fn framed(message: &impl Message) -> Vec<u8> {
    wire::encode(message).expect("a seed is short")
}

pub(crate) fn some_requests() -> Vec<Vec<u8>> {
    let request = |call| framed(&Request { call: Some(call) });
    let hello = request(Call::Hello(Hello {
        version: wire::VERSION,
    }));
    let changes = request(Call::Changes(Changes::default()));
    let hold = request(Call::Hold(Hold::default()));
    vec![framed(&Request::default()), [hello, hold].concat(), changes]
}

pub(crate) fn some_replies() -> Vec<Vec<u8>> {
    let range = |offset_bytes, kind: RangeKind| Range {
        offset_bytes,
        length_bytes: 4096,
        kind: kind.into(),
    };
    let page = ExtentPage {
        ranges: vec![range(4096, RangeKind::Data), range(8192, RangeKind::Zero)],
        next_bytes: 16384,
        ..ExtentPage::default()
    };
    let reply = Reply {
        result: Some(Answer::Extents(page)),
    };
    vec![framed(&Reply::default()), framed(&reply)]
}

pub(crate) fn outcome(bytes: &[u8]) {
    let Ok(line) = std::str::from_utf8(bytes) else {
        return;
    };
    match Outcome::parse(line) {
        Some(Outcome::Failed { message, .. }) => assert!(line.contains(&message)),
        Some(Outcome::Ready { origin }) => {
            assert!(origin.is_none_or(|origin| line.contains(&origin)));
        }
        None => {}
    }
}

pub(crate) fn outcomes() -> Vec<Vec<u8>> {
    [
        "ready\n",
        "ready wwid 1\n",
        "error origin it is busy: unmount it\n",
        "error ",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

const CAPACITY: u64 = 16 << 20;

pub(crate) fn extent(bytes: &[u8]) {
    let Ok(wire) = DataExtent::decode(bytes) else {
        return;
    };
    check_extent(wire.clone());
    // A hash that nobody can guess must not be where damage ends.
    let plain = match Compression::try_from(wire.compression) {
        Ok(Compression::Zstd) => {
            let len = usize::try_from(wire.length_bytes.min(MAX_DATA_EXTENT_BYTES)).unwrap_or(0);
            zstd::bulk::decompress(&wire.data, len).unwrap_or_default()
        }
        _ => wire.data.to_vec(),
    };
    check_extent(DataExtent {
        blake3: Bytes::copy_from_slice(blake3::hash(&plain).as_bytes()),
        ..wire
    });
}

/// What is taken lies in the volume, is as long as it says, and is taken again.
fn check_extent(wire: DataExtent) {
    let Ok(checked) = recheck(wire, CAPACITY) else {
        return;
    };
    let end = checked.offset_bytes.checked_add(checked.length_bytes);
    assert!(end.is_some_and(|end| end <= CAPACITY));
    if checked.kind == i32::from(ExtentKind::Data) {
        assert_eq!(checked.data.len() as u64, checked.length_bytes);
    }
    assert_eq!(recheck(checked.clone(), CAPACITY).ok(), Some(checked));
}

pub(crate) fn extents() -> Vec<Vec<u8>> {
    let data = DataExtent {
        offset_bytes: 4096,
        length_bytes: 11,
        kind: ExtentKind::Data.into(),
        data: Bytes::from_static(b"some bytes!"),
        compression: Compression::None.into(),
        blake3: Bytes::copy_from_slice(blake3::hash(b"some bytes!").as_bytes()),
    };
    let plain = vec![7; 5000];
    let packed = DataExtent {
        length_bytes: 5000,
        data: zstd::bulk::compress(&plain, 1).unwrap_or_default().into(),
        compression: Compression::Zstd.into(),
        blake3: Bytes::copy_from_slice(blake3::hash(&plain).as_bytes()),
        ..data.clone()
    };
    let zero = DataExtent {
        length_bytes: CAPACITY,
        kind: ExtentKind::Zero.into(),
        ..DataExtent::default()
    };
    [data, packed, zero]
        .map(|extent| extent.encode_to_vec())
        .to_vec()
}
