//! Restores against a daemon in this process: to its host, and as a stream with every fault.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{RestoreArgs, TargetArgs, stream::stream};
use crate::{
    cmd::points::FilterArgs,
    exit::{Exit, Report},
    fake::{BLOCK, Fake, Injected},
};

/// Not a multiple of anything.
const CAPACITY: usize = (1 << 20) + 777;

/// What a pipe's reader gets.
#[derive(Clone, Default)]
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// The reader leaves after so much.
    leaves_at: Option<usize>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.bytes.lock().unwrap();
        if self.leaves_at.is_some_and(|bound| all.len() >= bound) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        all.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

fn args(point: &str) -> RestoreArgs {
    RestoreArgs {
        repository: "r".to_owned(),
        point: point.to_owned(),
        target: TargetArgs {
            stdout: true,
            ..Default::default()
        },
        create: false,
        filter: FilterArgs::default(),
        reconnect_for: Duration::from_secs(60),
    }
}

/// A repository with a point of a volume that holds data, zeros and an odd tail.
async fn backed_up() -> (Fake, Vec<u8>) {
    let fake = Fake::start(CAPACITY);
    fake.model().scribble(1, 3);
    fake.model().discard(30..60);
    fake.model().write(CAPACITY - 10, b"the tail");
    fake.command("repo init r /place").await.1.unwrap();
    fake.command("backup --to r vol").await.1.unwrap();
    let image = fake.model().live.clone();
    (fake, image)
}

async fn run(fake: &Fake, args: RestoreArgs, pipe: &Pipe) -> Result<String, Report> {
    let (_tell, context) = fake.context();
    stream(args, pipe.clone(), &context)
        .await
        .map(|streamed| streamed.line())
        .map_err(|error| Report::of(&error))
}

#[tokio::test]
async fn every_byte_comes_in_order() {
    let (fake, image) = backed_up().await;
    let pipe = Pipe::default();
    let line = run(&fake, args("latest"), &pipe).await.unwrap();
    assert!(pipe.bytes() == image);
    assert!(line.contains("the digest holds"), "{line}");
}

#[tokio::test]
async fn a_cut_stream_goes_on_behind_what_was_written_of_the_same_point() {
    for fault in [Injected::Cut(3), Injected::Truncate(5), Injected::Cut(0)] {
        let (fake, image) = backed_up().await;
        fake.model().faults.extend([fault, fault]);
        let pipe = Pipe::default();
        let line = run(&fake, args("latest"), &pipe).await.unwrap();
        assert!(pipe.bytes() == image, "{fault:?}");
        assert!(line.ends_with("2 attempts"), "{line}");
        let starts = fake.model().vault.starts.clone();
        let id = format!("{:032x}", 1);
        assert_eq!(starts[0], ("latest".to_owned(), 0));
        assert_eq!(
            (starts[1].0.as_str(), starts[2].0.as_str()),
            (id.as_str(), id.as_str())
        );
        assert!(starts[1].1 <= starts[2].1);
        assert_eq!(starts[1].1 > 0, !matches!(fault, Injected::Cut(0)));
    }
}

#[tokio::test]
async fn a_stream_without_its_end_is_an_error() {
    let (fake, image) = backed_up().await;
    fake.model().faults.push_back(Injected::Truncate(3));
    let pipe = Pipe::default();
    let mut args = args("latest");
    args.reconnect_for = Duration::ZERO;
    let report = run(&fake, args, &pipe).await.unwrap_err();
    assert_eq!(report.exit, Exit::NoDaemon);
    assert!(pipe.bytes().len() < image.len());
}

#[tokio::test]
async fn wrong_bytes_are_an_integrity_failure_and_are_not_written() {
    let (fake, image) = backed_up().await;
    fake.model().faults.push_back(Injected::Corrupt(1));
    let pipe = Pipe::default();
    let report = run(&fake, args("latest"), &pipe).await.unwrap_err();
    assert_eq!(report.exit, Exit::Integrity);
    let written = pipe.bytes();
    assert!(image.starts_with(&written) && written.len() < image.len());
    fake.model().faults.push_back(Injected::WrongDigest);
    let report = run(&fake, args("latest"), &Pipe::default())
        .await
        .unwrap_err();
    assert_eq!(report.exit, Exit::Integrity);
}

#[tokio::test]
async fn a_reader_that_leaves_ends_it() {
    let (fake, _) = backed_up().await;
    let pipe = Pipe {
        leaves_at: Some(10 * BLOCK),
        ..Default::default()
    };
    let report = run(&fake, args("latest"), &pipe).await.unwrap_err();
    assert_eq!(report.exit, Exit::Failed);
    assert!(report.message.contains("writing the image at"));
}

#[tokio::test]
async fn a_signal_ends_a_stream_that_hangs() {
    let (fake, _) = backed_up().await;
    fake.model().faults.push_back(Injected::Stall(2));
    let (tell, context) = fake.context();
    let hung = stream(args("latest"), Pipe::default(), &context);
    let signal = async {
        while fake.model().vault.starts.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tell.send_replace(1);
    };
    let (ended, ()) = tokio::join!(hung, signal);
    assert_eq!(Report::of(&ended.unwrap_err()).exit, Exit::Interrupted);
}

#[tokio::test]
async fn a_restore_on_the_daemons_host_is_a_job() {
    let (fake, _) = backed_up().await;
    let line = "restore r latest --name vol --to image --create";
    let (said, ended) = fake.command(line).await;
    ended.unwrap();
    assert!(said[0].contains("not there already"), "{said:?}");
    fake.command("restore r latest --to-volume vol")
        .await
        .1
        .unwrap();
    let asked = fake.model().vault.asked.clone();
    let here = std::env::current_dir().unwrap().join("image");
    assert!(
        asked[1].contains(&format!("Path({here:?})")),
        "{}",
        asked[1]
    );
    assert!(asked[1].contains("create: true"));
    assert!(asked[2].contains("Volume(\"vol\")"));
    let none = fake
        .command("restore r latest --name other --to image")
        .await
        .1
        .unwrap_err();
    assert_eq!(none.reason.as_deref(), Some("POINT_NOT_FOUND"));
    let json = fake.command("--json restore r latest --stdout").await;
    assert_eq!(json.1.unwrap_err().exit, Exit::Usage);
}
