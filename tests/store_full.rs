//! The store fills: the host never notices, the reader is told, the operator was warned.

use std::time::Duration;

use tidemark_proto::v1::{
    AttachVolumeRequest, EventKind, FullPolicy, Snapshot, SnapshotState, StoreConfig,
};
use tidemark_tests::{
    Api, Daemon, Fio, MIB, Random,
    api::{Refusal, attach_request},
    cli::code,
    fio::Report,
    host, image, pull,
    pull::Pull,
};

const VOLUME_BYTES: u64 = 128 * MIB + 512;
/// Far less than the load overwrites.
const AREA_BYTES: u64 = 24 * MIB;

#[test]
fn the_snapshot_is_dropped_and_the_host_writes_on() {
    let daemon = attached(|_| {});
    let api = daemon.api();
    let snapshot = api.snapshot("vol");

    overwrite(&daemon);

    let now = api.get_snapshot(&snapshot.id).expect("its record stays");
    assert_eq!(now.state(), SnapshotState::Overflowed, "{now:?}");
    assert!(!now.state_reason.is_empty(), "the reason is told");
    assert!(now.view_path.is_empty(), "a view that is gone has no path");
    assert_overflowed(&refusal(&api, &snapshot, &daemon));
    let pulled = daemon.cli().run(&[
        "pull",
        &snapshot.id,
        &daemon.world().text("command.img"),
        "--json",
    ]);
    assert_eq!(pulled.code, Some(code::FAILED), "{pulled:?}");
    assert!(pulled.stderr.contains("SNAPSHOT_OVERFLOWED"), "{pulled:?}");
    assert_warned(&api, &snapshot);

    // The volume is none the worse: the next snapshot is whole, and the dropped one's checkpoint
    // still serves as the base of a diff.
    let next = api.snapshot("vol");
    let whole = daemon.path("whole.img");
    pull::pull(&api, &next, None, &whole).expect("a full pull");
    image::assert_same(next.view_path.as_ref(), &whole);
    let changed = pull::pull(&api, &next, snapshot.checkpoint, &whole).expect("a diff");
    assert!(changed.data_bytes > AREA_BYTES, "{}", changed.data_bytes);
    image::assert_same(next.view_path.as_ref(), &whole);
}

#[test]
fn a_reader_in_mid_stream_gets_the_typed_error() {
    let daemon = attached(|_| {});
    let api = daemon.api();
    let snapshot = api.snapshot("vol");
    let mut pull = Pull::new(&snapshot, None, &daemon.path("partial.img"));
    let mut stream = pull.open(&api).expect("a stream opens");
    for _ in 0..4 {
        let message = api
            .next(&mut stream)
            .expect("a message")
            .expect("not the end");
        assert!(pull.take(message).is_none(), "the stream has only begun");
    }

    overwrite(&daemon);

    let end = loop {
        match api.next(&mut stream) {
            Ok(Some(message)) => assert!(pull.take(message).is_none(), "no trailer may come"),
            Ok(None) => panic!("the stream ended as if it were whole"),
            Err(refusal) => break refusal,
        }
    };
    assert_overflowed(&end);
    host::eventually("the operation ends with its stream", || {
        api.running().is_empty()
    });
}

#[test]
fn slow_writers_are_delayed_and_still_end() {
    let daemon = attached(|store| {
        store.set_full_policy(FullPolicy::Slow);
        store.max_write_delay = Some(prost_types::Duration {
            seconds: 0,
            nanos: 5_000_000,
        });
    });
    let api = daemon.api();
    let snapshot = api.snapshot("vol");

    overwrite(&daemon);

    let now = api.get_snapshot(&snapshot.id).expect("its record stays");
    assert_eq!(
        now.state(),
        SnapshotState::Overflowed,
        "slowing is not for ever"
    );
    let stats = api
        .volume("vol")
        .expect("a volume")
        .stats
        .expect("its sums");
    let delayed = stats.delayed.expect("the delay is told");
    assert!(
        Duration::try_from(delayed).is_ok_and(|delayed| !delayed.is_zero()),
        "writers were slowed first: {delayed:?}"
    );
}

fn attached(configure: impl FnOnce(&mut StoreConfig)) -> Daemon {
    let daemon = Daemon::start();
    let origin = daemon.path("vol.img");
    image::filled(&origin, VOLUME_BYTES, &mut Random::new(7));
    let mut request: AttachVolumeRequest =
        attach_request("vol", &origin, &daemon.path("vol.area"), AREA_BYTES);
    configure(request.store.get_or_insert_default());
    daemon.api().attach(request).expect("an attach");
    daemon
}

/// Overwrites three times what the store holds, checks every byte, and meets no error.
fn overwrite(daemon: &Daemon) -> Report {
    let volume = daemon.api().volume("vol").expect("a volume");
    Fio::new(&daemon.path("fio.json"))
        .option(&format!("filename={}", volume.device_path))
        .option("rw=randwrite")
        .option("bs=4k")
        .option("size=72m")
        .option("direct=1")
        .option("ioengine=libaio")
        .option("iodepth=8")
        .option("verify=crc32c")
        .option("verify_fatal=1")
        .run()
}

fn refusal(api: &Api, snapshot: &Snapshot, daemon: &Daemon) -> Refusal {
    pull::pull(api, snapshot, None, &daemon.path("never.img"))
        .expect_err("a dropped snapshot cannot be pulled")
}

fn assert_overflowed(refusal: &Refusal) {
    assert_eq!(refusal.reason, "SNAPSHOT_OVERFLOWED", "{refusal:?}");
    assert_eq!(refusal.domain, "tidemark");
    assert_eq!(refusal.code, tonic::Code::FailedPrecondition, "{refusal:?}");
}

fn assert_warned(api: &Api, snapshot: &Snapshot) {
    let mut events = Vec::new();
    host::eventually("the overflow is in the events", || {
        events = api.events();
        position(&events, EventKind::SnapshotOverflowed).is_some()
    });
    let filling = position(&events, EventKind::StoreFilling).expect("a warning came");
    let overflowed = position(&events, EventKind::SnapshotOverflowed).expect("it is there");
    assert!(filling < overflowed, "the warning came first");
    assert_eq!(events[overflowed].snapshot_id, snapshot.id);
    assert_eq!(events[overflowed].volume, "vol");
}

fn position(events: &[tidemark_proto::v1::Event], kind: EventKind) -> Option<usize> {
    events.iter().position(|event| event.kind() == kind)
}
