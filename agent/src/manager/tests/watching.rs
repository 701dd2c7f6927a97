//! Events: kept ones, then live ones, each once.

use std::time::Duration;

use tidemark_proto::{
    private::VolumeEventKind,
    v1::{EventKind, Severity},
};

use super::bench::{Bench, count, events};
use crate::manager::Happening;

fn happening(message: &str) -> Happening {
    Happening::new(EventKind::RestoreEnded, Severity::Info, message)
}

#[tokio::test]
async fn kept_events_are_followed_by_live_ones_without_gap() {
    let bench = Bench::new();
    let manager = bench.start().await;
    manager.events().record(happening("kept")).await;
    let mut reader = manager.events().read(0, None, true);
    assert!(
        reader
            .next()
            .await
            .unwrap()
            .unwrap()
            .event
            .kind
            .contains("AGENT_STARTED")
    );
    // More than a live reader is sent at once: it must fall back on the catalog.
    for number in 0..600 {
        manager
            .events()
            .record(happening(&number.to_string()))
            .await;
    }
    let mut sequence = 1;
    for _ in 0..601 {
        let record = reader.next().await.unwrap().unwrap();
        assert_eq!(record.sequence, sequence + 1);
        sequence = record.sequence;
    }
    let waited = tokio::time::timeout(Duration::from_millis(20), reader.next()).await;
    assert!(waited.is_err());
    manager.events().record(happening("live")).await;
    assert_eq!(reader.next().await.unwrap().unwrap().event.message, "live");
}

#[tokio::test]
async fn readers_filter_by_volume_and_start_where_asked() {
    let bench = Bench::new();
    let manager = bench.start().await;
    for volume in ["a", "b", "a"] {
        manager
            .events()
            .record(happening("x").on_volume(volume))
            .await;
    }
    let mut reader = manager.events().read(2, Some("a".to_owned()), false);
    assert_eq!(reader.next().await.unwrap().unwrap().sequence, 4);
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_servers_events_are_taken_once_across_restarts() {
    let bench = Bench::new();
    let manager = bench.start().await;
    let fake = bench.attach(&manager, "a").await;
    fake.tell(VolumeEventKind::StoreFilling, None, "80 % are used");
    while count(&manager, "STORE_FILLING").await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.kill(manager).await;
    fake.tell(VolumeEventKind::StoreFull, None, "full");
    let manager = bench.start().await;
    while count(&manager, "STORE_FULL").await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count(&manager, "STORE_FILLING").await, 1);
    let all = events(&manager).await;
    let full = all
        .iter()
        .find(|one| one.event.kind.ends_with("STORE_FULL"))
        .unwrap();
    assert_eq!(full.event.at_us, 77);
    assert_eq!(full.event.message, "full");
    assert!(
        all.windows(2)
            .all(|pair| pair[0].sequence + 1 == pair[1].sequence)
    );
}
