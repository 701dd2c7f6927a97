//! Scrapes over fake volume servers.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

use super::*;
use crate::manager::tests::bench::Bench;

async fn agent(bench: &Bench) -> Arc<Metrics> {
    let manager = bench.start().await;
    let operations = Operations::default();
    let backups = Backups::new(Arc::clone(&manager), operations.clone());
    Metrics::new(manager, backups, operations, None)
}

async fn asked(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn both_ways_give_the_same_and_nothing_else_is_there() {
    let bench = Bench::new();
    let metrics = agent(&bench).await;
    let busy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = busy.local_addr().unwrap();
    let failed = metrics.listen(Some(address)).await.failed;
    assert!(
        failed[0].contains(&format!("not served at {address}")),
        "{failed:?}"
    );
    drop(busy);
    // Another test's child may hold a copy of it until it runs its program.
    while !metrics.listen(Some(address)).await.failed.is_empty() {
        tokio::task::yield_now().await;
    }
    let socket = bench.paths().metrics_socket();
    let by_socket = asked(UnixStream::connect(&socket).await.unwrap(), GET).await;
    let by_tcp = asked(TcpStream::connect(address).await.unwrap(), GET).await;
    for answer in [&by_socket, &by_tcp] {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(text::CONTENT_TYPE), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }
    let elsewhere = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = asked(UnixStream::connect(&socket).await.unwrap(), elsewhere).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    let posted = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let answer = asked(UnixStream::connect(&socket).await.unwrap(), posted).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    // No longer asked for.
    metrics.listen(None).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_down_and_hides_no_other() {
    let bench = Bench::new();
    let metrics = agent(&bench).await;
    let _one = bench.attach(&metrics.manager, "one").await;
    let two = bench.attach(&metrics.manager, "two").await;
    let text = metrics.scrape().await.unwrap();
    for line in [
        "tidemark_volume_up{volume=\"one\"} 1.0",
        "tidemark_volume_request_bytes_total{volume=\"two\",kind=\"write\"} 24576.0",
        "tidemark_volume_request_duration_seconds_bucket{le=\"0.001\",volume=\"one\",kind=\"write\"} 5",
        "tidemark_volume_hold_duration_seconds_count{volume=\"one\"} 6",
        "tidemark_state_up 1.0",
    ] {
        assert!(
            text.lines().any(|told| told == line),
            "{line} is not in\n{text}"
        );
    }
    two.die().await;
    let text = metrics.scrape().await.unwrap();
    for line in [
        "tidemark_volume_up{volume=\"one\"} 1.0",
        "tidemark_volume_up{volume=\"two\"} 0.0",
    ] {
        assert!(
            text.lines().any(|told| told == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(
        !text.contains("tidemark_volume_size_bytes{volume=\"two\"}"),
        "{text}"
    );
}

#[tokio::test]
async fn schedules_are_told_by_their_records() {
    let bench = Bench::new();
    let metrics = agent(&bench).await;
    let text = "[volume.data]\ndevice = \"/dev/sdx\"\narea = \"/area\"\n\
        [repository.vault]\nlocation = \"/vault\"\n\
        [backup.nightly]\nvolumes = [\"data\"]\nrepository = \"vault\"\n\
        [backup.never]\nvolumes = [\"data\"]\nrepository = \"vault\"\n";
    let read = tidemark_config::Configuration::parse(text).unwrap();
    metrics.configure(read.backups);
    let state_dir = bench.paths().state_dir;
    fs::create_dir_all(runs::folder(&state_dir)).unwrap();
    let mut record = Record {
        started_at: 100,
        ended_at: 110,
        backed_up_at: 105,
        failed_in_a_row: 2,
        outcome: runs::Outcome::Partial,
        ..Record::default()
    };
    let write = |record: &Record| {
        let bytes = serde_json::to_vec(record).unwrap();
        fs::write(runs::file(&state_dir, "nightly"), bytes).unwrap();
    };
    write(&record);
    let told = metrics.scrape().await.unwrap();
    for line in [
        "tidemark_schedule_info{schedule=\"never\",repository=\"vault\",calendar=\"\"} 1",
        "tidemark_schedule_last_end_timestamp_seconds{schedule=\"nightly\"} 110.0",
        "tidemark_schedule_failures_in_a_row{schedule=\"nightly\"} 2.0",
        "tidemark_schedule_last_outcome{schedule=\"nightly\",outcome=\"partial\"} 1.0",
        "tidemark_schedule_last_outcome{schedule=\"nightly\",outcome=\"failed\"} 0.0",
        "tidemark_volume_last_backup_timestamp_seconds{volume=\"data\"} 105.0",
        "tidemark_repository_last_backup_timestamp_seconds{repository=\"vault\"} 105.0",
    ] {
        assert!(
            told.lines().any(|told| told == line),
            "{line} is not in\n{told}"
        );
    }
    assert!(!told.contains("last_success_timestamp_seconds{"), "{told}");
    record.ended_at = 0;
    write(&record);
    let told = metrics.scrape().await.unwrap();
    assert!(!told.contains("tidemark_schedule_last_outcome{"), "{told}");
}
