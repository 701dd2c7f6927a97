//! Runs a model in all its orders.

use std::{
    cell::Cell,
    env,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use loom::model::Builder;
use tidemark_store::sync::{Mistake, with_mistake};

/// Which of its mistakes a test is to run, in a process of its own: loom's threads cannot always
/// be unwound, so a mistake that is seen may end the process.
const MISTAKE: &str = "TIDEMARK_MISTAKE";

std::thread_local! {
    /// Mistakes that this test has come by.
    static PASSED: Cell<u32> = const { Cell::new(0) };
}

/// How often a thread may be interrupted where it would not wait. Bugs that need more are rare
/// (Musuvathi and Qadeer, Iterative Context Bounding, PLDI 2007); models that are small enough
/// are explored without a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Preemptions {
    AtMost(usize),
    All,
}

/// Fails if `model` fails in any of its orders.
pub(crate) fn holds(preemptions: Preemptions, model: impl Fn() + Send + Sync + 'static) {
    if env::var_os(MISTAKE).is_none() {
        let orders = explore(preemptions, model);
        println!("{}: {orders} orders, preemptions: {preemptions:?}", test());
    }
}

/// Fails unless `model`, which has a mistake in it, fails in some order and complains of `what`.
#[track_caller]
pub(crate) fn fails(
    what: &str,
    preemptions: Preemptions,
    model: impl Fn() + Send + Sync + 'static,
) {
    let number = PASSED.replace(PASSED.get() + 1).to_string();
    match env::var(MISTAKE) {
        Ok(asked) if asked == number => {
            let orders = explore(preemptions, model);
            println!("not seen in {orders} orders");
        }
        Ok(_) => {}
        Err(_) => run_apart(what, &number),
    }
}

/// Fails unless `model` fails in some order, complaining of `what`, once its words and locks have
/// the mistake.
#[track_caller]
pub(crate) fn sees(
    mistake: Mistake,
    what: &str,
    preemptions: Preemptions,
    model: impl Fn() + Send + Sync + 'static,
) {
    with_mistake(mistake, || fails(what, preemptions, model));
}

#[track_caller]
fn run_apart(what: &str, number: &str) {
    let program = env::current_exe().expect("this program has a path");
    let told = Command::new(program)
        .args(["--exact", &test(), "--nocapture"])
        .env(MISTAKE, number)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("this program runs once more");
    let [out, error] = [&told.stdout, &told.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(
        !told.status.success(),
        "the mistake {number} was not seen: {out}"
    );
    assert!(
        error.contains(what),
        "the mistake {number} was seen as something else than {what:?}: {error}"
    );
}

fn test() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// Runs the model in each of its orders, and tells how many these were.
fn explore(preemptions: Preemptions, model: impl Fn() + Send + Sync + 'static) -> u64 {
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = match preemptions {
        Preemptions::AtMost(bound) => Some(bound),
        Preemptions::All => None,
    };
    let orders = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    orders.load(Relaxed)
}
