//! Repositories on an object service: the contract of a storage, names that many want, and many agents at
//! once while connections are cut and requests fail. TIDEMARK_SEED repeats a story's faults.

#[path = "s3/story.rs"]
mod story;

use std::{io::ErrorKind, sync::Arc};

use tidemark_agent::backup::s3::S3;
use tidemark_store::repository::{
    Error, Made, Progress, Repository,
    backend::{AppendOnly, Backend, contract},
    care::{PruneOptions, ReadData},
};
use tidemark_tests::{
    Random,
    s3::{BUCKET, Faults, ObjectServer},
    stored::{Model, back_up, restored},
};

use story::Story;

#[test]
fn it_keeps_the_contract_of_a_storage() {
    let server = ObjectServer::start(Faults::none());
    for prefix in ["", "deep/repository"] {
        let storage = S3::open(&server.settings(prefix)).expect("the service is there");
        contract::holds(&storage);
    }
    // Nothing of the probes and of the clock stays.
    assert_eq!(server.objects("deep/repository/tmp"), 0);
}

#[test]
fn it_keeps_the_contract_while_connections_are_cut() {
    let mut random = Random::announced("s3 contract");
    for round in 0..10 {
        let server = ObjectServer::start(Faults::seeded(random.next_u64()));
        let storage = S3::open(&server.settings("repository"));
        contract::holds(&storage.unwrap_or_else(|why| panic!("round {round}: {why}")));
    }
}

#[test]
fn what_is_wrong_is_told_when_it_is_opened() {
    let server = ObjectServer::start(Faults::none());
    let open = |bucket, secret| {
        let why = S3::open(&server.settings_with(bucket, "x", secret)).unwrap_err();
        (why.kind(), why.to_string())
    };
    let (kind, text) = open(BUCKET, "wrong");
    assert_eq!(kind, ErrorKind::PermissionDenied);
    assert!(text.contains("the key id or the secret is wrong"), "{text}");
    let (_, text) = open("nowhere", "test-secret");
    assert!(
        text.contains("s3://nowhere/x: there is no such bucket"),
        "{text}"
    );
}

#[test]
fn of_many_that_create_an_object_one_wins() {
    const AGENTS: usize = 3;
    const THREADS: usize = 4;
    const NAMES: usize = 12;
    let mut random = Random::announced("s3 races");
    let server = ObjectServer::start(Faults::seeded(random.next_u64()));
    let agents = [(); AGENTS].map(|()| S3::open(&server.settings("race")).expect("it is there"));
    let claims: Vec<(usize, String)> = std::thread::scope(|scope| {
        let begin = Arc::new(std::sync::Barrier::new(AGENTS * THREADS));
        let threads: Vec<_> = (0..AGENTS * THREADS)
            .map(|thread| {
                let (agent, begin) = (&agents[thread % AGENTS], begin.clone());
                scope.spawn(move || {
                    begin.wait();
                    let mine = (0..NAMES).filter(|name| claim(agent, *name, thread));
                    mine.map(|name| (name, bytes_of(thread)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let claimed = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        claimed.collect()
    });
    println!("{:?}", server.calm());
    assert_eq!(claims.len(), NAMES, "{claims:?}");
    for (name, bytes) in claims {
        let there = agents[0].read(&format!("points/{name}"), 1 << 20).unwrap();
        assert!(there == bytes.as_bytes(), "{name}");
    }
}

/// Whether this thread's object is the one of that name.
fn claim(storage: &dyn Backend, name: usize, thread: usize) -> bool {
    match storage.create(&format!("points/{name}"), bytes_of(thread).as_bytes()) {
        Ok(()) => true,
        Err(why) if why.kind() == ErrorKind::AlreadyExists => false,
        Err(why) => panic!("thread {thread}: {why}"),
    }
}

/// Of very different lengths, so that some are cut more often.
fn bytes_of(thread: usize) -> String {
    format!("of thread {thread} ").repeat(1 << thread)
}

#[test]
fn a_listing_has_every_page() {
    const OBJECTS: usize = 1_100;
    let server = ObjectServer::start(Faults::none());
    let storage = S3::open(&server.settings("many")).expect("the service is there");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let storage = &storage;
            scope.spawn(move || {
                for object in (thread..OBJECTS).step_by(4) {
                    storage.create(&format!("keys/{object}"), b"one").unwrap();
                }
            });
        }
    });
    let listed = storage.list("keys/").unwrap();
    let names: std::collections::BTreeSet<_> = listed.iter().map(|object| &object.name).collect();
    assert_eq!((listed.len(), names.len()), (OBJECTS, OBJECTS));
}

#[test]
fn an_agent_that_may_only_add_backs_up_and_restores() {
    let server = ObjectServer::start(Faults::none());
    let open = || Arc::new(S3::open(&server.settings("add-only")).expect("it is there"));
    Repository::init(open(), None).unwrap();
    let agent = Repository::open(Arc::new(AppendOnly::new(open())), None).unwrap();
    let mut model = Model::new(Random::new(1), 200);
    let first = back_up(&agent, &model, None, Made::Full("the first".into())).unwrap();
    model.change(20);
    let second = back_up(&agent, &model, Some(first), Made::Incremental).unwrap();
    assert!(restored(&agent, second).unwrap() == model.bytes);
    let checked = agent.check(ReadData::All, &Progress::default()).unwrap();
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
    let denied = |why: Error| matches!(why, Error::Storage { why, .. } if why.kind() == ErrorKind::PermissionDenied);
    assert!(denied(agent.forget(first).unwrap_err()));
    // Another may.
    let keeper = Repository::open(open(), None).unwrap();
    keeper.forget(first).unwrap();
    let all = PruneOptions {
        min_age_seconds: 0,
        grace_seconds: 3600,
        max_waste_percent: 10,
        ..PruneOptions::default()
    };
    assert!(
        keeper
            .prune(&all, &Progress::default())
            .unwrap()
            .condemned_packs
            > 0
    );
    server.pass(3601);
    assert!(denied(agent.prune(&all, &Progress::default()).unwrap_err()));
    assert!(
        keeper
            .prune(&all, &Progress::default())
            .unwrap()
            .deleted_packs
            > 0
    );
    assert!(restored(&agent, second).unwrap() == model.bytes);
}

#[test]
fn two_agents_a_prune_and_a_check_at_once() {
    let mut random = Random::announced("s3 at once");
    for _ in 0..3 {
        Story::begin(random.next_u64()).tell();
    }
}
