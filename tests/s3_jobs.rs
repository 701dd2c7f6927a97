//! Agents and the `tidemark` command with a repository on an object service: two agents, a prune and a check
//! at once while connections are cut and requests fail; an agent that dies in the middle; and what is
//! refused. TIDEMARK_SEED repeats the choices.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tidemark_tests::{
    Cli, Daemon, MIB, Random,
    cli::{Ended, code},
    host, image,
    repositories::key_file,
    s3::{BUCKET, Faults, ObjectServer},
    world,
};

const ROUNDS: usize = 4;
/// A backup whose packs were pruned under it says so, and is run again.
const ATTEMPTS: usize = 5;
/// Longer than half of an hour's grace: what a prune condemns the next but one deletes.
const STEP_SECONDS: u64 = 1900;
/// Exit code: denied, or a wrong key.
const DENIED: i32 = 12;

/// An agent with an access key and an encryption key.
struct Agent {
    daemon: Daemon,
    cli: Cli,
}

impl Agent {
    fn start(server: &ObjectServer) -> Self {
        let daemon = Daemon::start();
        server.write_credentials(&daemon.path("access"));
        key_file(daemon.path("key"), 5);
        let cli = daemon.cli();
        Self { daemon, cli }
    }

    /// `tidemark repo init` or `add`, with more words.
    fn repo(&self, server: &ObjectServer, verb: &str, name: &str, more: &[&str]) -> Ended {
        let (access, endpoint) = (self.daemon.world().text("access"), server.endpoint());
        let place = format!("s3://{BUCKET}/hosts/{name}");
        let words = ["repo", verb, name, &place, "--s3-endpoint", &endpoint];
        let access = ["--s3-allow-http", "--s3-credentials-file", &access];
        self.cli.run(&[&words[..], &access, more].concat())
    }

    /// The same with the right key, and well.
    fn knows(&self, server: &ObjectServer, verb: &str, more: &[&str]) {
        let key = self.daemon.world().text("key");
        let ended = self.repo(
            server,
            verb,
            "repo",
            &[&["--key-file", &key], more].concat(),
        );
        assert_eq!(ended.code, Some(code::OK), "{ended:?}");
    }

    /// Backs up as the words say; gives the point.
    fn back_up(&self, what: &[&str]) -> Value {
        for _ in 0..ATTEMPTS {
            let words = [&["backup", "--to", "repo", "--json"], what].concat();
            let ended = self.cli.run(&words);
            if ended.code == Some(code::OK) {
                let told: Value = serde_json::from_str(&ended.stdout).expect("a document");
                return told["result"]["points"][0].clone();
            }
            let again = ended.stderr.contains("were pruned meanwhile");
            assert!(again, "backup {what:?}: {ended:?}");
        }
        panic!("backup {what:?} was pruned {ATTEMPTS} times");
    }

    fn restored(&self, point: &str) -> blake3::Hash {
        let target = self.daemon.world().text(&format!("restored-{point}"));
        self.cli
            .ok(&["restore", "repo", point, "--to", &target, "--create"]);
        let digest = image::digest(target.as_ref());
        fs::remove_file(target).expect("it can go");
        digest
    }

    fn prune(&self) -> Value {
        self.cli.json(&["prune", "repo", "--grace", "1h"])["result"].clone()
    }

    /// Fails, with what was found, where there are findings.
    fn check(&self) {
        self.cli.json(&["check", "repo", "--read-data"]);
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has no {field}"))
}

fn number(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{value} has no {field}"))
}

/// Points that finished and were not forgotten, with what they must restore to.
type Points = Mutex<BTreeMap<String, blake3::Hash>>;

/// Changes an image and backs it up, again and again, and forgets some of it.
fn work(agent: &Agent, image: &Path, what: &[&str], points: &Points, random: &mut Random) {
    let mut mine: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        for _ in 0..3 {
            let at = random.below(20) * MIB + random.below(256) * 4096;
            image::scribble(image, at, random.between(1, 64) * 4096, random);
        }
        let digest = image::digest(image);
        let id = text(&agent.back_up(what), "id").to_owned();
        let mut all = points.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.clone(), digest);
        if mine.len() > 1 {
            // First: what is forgotten may be gone at once.
            let oldest = mine.remove(0);
            all.remove(&oldest);
            drop(all);
            agent.cli.ok(&["forget", "repo", &oldest]);
        }
        mine.push(id);
    }
}

/// Counts down also when its thread fails: whoever waits for it must not wait for ever.
struct Working<'a>(&'a AtomicUsize);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn two_agents_a_prune_and_a_check_at_once() {
    let mut random = Random::announced("s3 jobs");
    let server = ObjectServer::start(Faults::mild(random.next_u64()));
    let agents = [(); 2].map(|()| Agent::start(&server));
    agents[0].knows(&server, "init", &[]);
    agents[1].knows(&server, "add", &[]);
    // One has a volume, the other an image that no agent serves.
    let volume = agents[0].daemon.attach_new("vol", 24 * MIB, 24 * MIB);
    let file = agents[1].daemon.path("disk.img");
    image::sparse(&file, 24 * MIB);
    let image = world::text(&file);
    let images: [(PathBuf, Vec<&str>); 2] = [
        (volume.device_path.into(), vec!["vol"]),
        (file, vec!["--image", &image]),
    ];
    server.disturb();
    let (points, working) = (Points::default(), AtomicUsize::new(2));
    let seeds = [random.next_u64(), random.next_u64()];
    std::thread::scope(|scope| {
        for ((agent, (image, what)), seed) in agents.iter().zip(&images).zip(seeds) {
            let (points, working) = (&points, &working);
            scope.spawn(move || {
                let _working = Working(working);
                work(agent, image, what, points, &mut Random::new(seed));
            });
        }
        scope.spawn(|| {
            while working.load(Ordering::Relaxed) > 0 {
                agents[1].prune();
                server.pass(STEP_SECONDS);
            }
        });
        scope.spawn(|| {
            while working.load(Ordering::Relaxed) > 0 {
                agents[0].check();
            }
        });
    });
    let injected = server.calm();
    println!("{injected:?}");
    assert!(injected.cut + injected.refused > 0, "{injected:?}");
    let points = points.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(points.len(), 4, "two of each");
    let all_is_there = || {
        agents[0].check();
        for (id, digest) in &points {
            // Each sees the other's.
            for agent in &agents {
                assert_eq!(agent.restored(id), *digest, "{id}");
            }
        }
    };
    all_is_there();
    let mut deleted = 0;
    for _ in 0..6 {
        server.pass(STEP_SECONDS);
        deleted += number(&agents[0].prune(), "deleted_packs");
    }
    assert!(deleted > 0, "what was forgotten never went");
    all_is_there();
}

#[test]
fn an_agent_that_is_killed_sends_nothing_again() {
    let mut random = Random::announced("s3 killed");
    let server = ObjectServer::start(Faults::none());
    let mut agent = Agent::start(&server);
    agent.knows(&server, "init", &[]);
    let volume = agent.daemon.attach_new("vol", 64 * MIB, 8 * MIB);
    let device = PathBuf::from(volume.device_path);
    image::scribble(&device, 0, 64 * MIB, &mut random);
    // Packs of 16 MiB: it is killed when one of them is there.
    server.slow_down(400);
    let before = server.put_bytes();
    let mut running = agent.cli.start(&["backup", "--to", "repo", "vol"]);
    host::eventually("a pack is stored", || {
        server.put_bytes() - before > 16 * MIB
    });
    agent.daemon.kill();
    // It would wait for the agent to come back.
    running.kill().expect("a child can be killed");
    running.wait().expect("a child can be waited for");
    // What was on its way arrives.
    let mut stored = server.put_bytes();
    host::eventually("nothing arrives any more", || {
        std::thread::sleep(std::time::Duration::from_millis(1000));
        std::mem::replace(&mut stored, server.put_bytes()) == server.put_bytes()
    });
    stored -= before;
    assert_eq!(
        server.objects("hosts/repo/points"),
        0,
        "it was killed too late"
    );
    server.slow_down(0);
    agent.daemon.restart();
    let point = agent.back_up(&["vol"]);
    let sent = server.put_bytes() - before - stored;
    println!("{stored} bytes were stored when it died, {sent} were sent after that");
    // Its data does not compress, and the rest of the repository is small.
    assert!(stored + sent < 65 * MIB, "{stored} + {sent}");
    assert!(number(&point["work"], "stored_bytes") < 49 * MIB);
    agent.check();
    assert_eq!(agent.restored(text(&point, "id")), image::digest(&device));
}

#[test]
fn what_is_not_allowed_and_what_is_not_there_is_said() {
    let server = ObjectServer::start(Faults::none());
    let keeper = Agent::start(&server);
    let key = keeper.daemon.world().text("key");
    let missing = keeper.repo(&server, "add", "repo", &["--key-file", &key]);
    assert_eq!(missing.code, Some(code::NO_DAEMON), "{missing:?}");
    assert!(
        missing.stderr.contains("REPOSITORY_NOT_FOUND"),
        "{missing:?}"
    );
    keeper.knows(&server, "init", &[]);

    let adder = Agent::start(&server);
    let wrong = key_file(adder.daemon.path("wrong"), 9);
    for more in [
        vec![],
        vec!["--key-file", wrong.to_str().expect("it is text")],
    ] {
        let refused = adder.repo(&server, "add", "repo", &more);
        assert_eq!(refused.code, Some(DENIED), "{refused:?}");
        assert!(refused.stderr.contains("key"), "{refused:?}");
    }
    fs::write(
        adder.daemon.path("access"),
        "aws_access_key_id = test-key\naws_secret_access_key = other\n",
    )
    .expect("a file can be written");
    let denied = adder.repo(&server, "add", "repo", &["--key-file", &key]);
    assert_ne!(denied.code, Some(code::OK));
    assert!(
        denied.stderr.contains("the key id or the secret is wrong"),
        "{denied:?}"
    );

    server.write_credentials(&adder.daemon.path("access"));
    adder.knows(&server, "add", &["--append-only"]);
    let disk = adder.daemon.world().text("disk.img");
    image::filled(disk.as_ref(), 3 * MIB, &mut Random::new(3));
    let point = adder.back_up(&["--image", &disk]);
    let id = text(&point, "id");
    for words in [
        vec!["forget", "repo", id],
        vec!["prune", "repo"],
        vec!["repair", "repo"],
    ] {
        let refused = adder.cli.run(&words);
        assert_eq!(refused.code, Some(DENIED), "{words:?}: {refused:?}");
        assert!(refused.stderr.contains("append-only"), "{refused:?}");
    }
    adder.check();
    assert_eq!(adder.restored(id), image::digest(disk.as_ref()));
    // Who may, does.
    keeper.cli.ok(&["forget", "repo", id]);
    // What is young is left alone, then it is condemned, then it goes.
    let deleted = [0; 3].map(|_| {
        let deleted = number(&keeper.prune(), "deleted_packs");
        server.pass(3601);
        deleted > 0
    });
    assert_eq!(deleted, [false, false, true]);
    assert_eq!(server.objects("hosts/repo/points"), 0);
}
