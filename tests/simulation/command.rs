//! The simulator, for long runs and for looking at one world.
//!
//! ```text
//! simulate [--operations N] [--seed N] [--jobs N]          many worlds, from a seed on
//! simulate --replay SEED [--steps N] [--without A,B]       one world
//!          [--defect STEP] [--trace] [--shrink]
//! ```
//!
//! `--without` keeps kinds of trouble out, by name; `--defect` lets the engine leave out a step.
//! Exits with 1 when an invariant did not hold, after a line with the command that shows it again.

use std::{process::ExitCode, time::Duration, time::Instant};

use tidemark_agent::volume::Step;
use tidemark_tests::simulation::{Campaign, Count, Failure, Fault, Plan, run, shrink};

const DEFECTS: [Step; 10] = [
    Step::Mark,
    Step::TellFirst,
    Step::Preserve,
    Step::TellCopies,
    Step::AskAgain,
    Step::Drain,
    Step::ForwardFlush,
    Step::CompareSpan,
    Step::PassError,
    Step::EndHold,
];

struct Wishes {
    plan: Plan,
    operations: u64,
    jobs: usize,
    replay: bool,
    shrink: bool,
}

impl Wishes {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wishes = Self {
            plan: Plan::new(1),
            operations: 1_000_000,
            jobs: 1,
            replay: false,
            shrink: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--operations" => wishes.operations = number(&value()?)?,
                "--seed" => wishes.plan.seed = number(&value()?)?,
                "--jobs" => {
                    wishes.jobs = usize::try_from(number(&value()?)?).map_err(|e| e.to_string())?;
                }
                "--replay" => {
                    wishes.replay = true;
                    wishes.plan.seed = number(&value()?)?;
                }
                "--steps" => wishes.plan.steps = number(&value()?)?,
                "--without" => {
                    for name in value()?.split(',') {
                        let fault = Fault::parse(name)
                            .ok_or_else(|| format!("{name:?}: one of {:?}", Fault::ALL))?;
                        wishes.plan.without = wishes.plan.without.with(fault);
                    }
                }
                "--defect" => {
                    let name = value()?;
                    let defect = DEFECTS.into_iter().find(|step| format!("{step:?}") == name);
                    let defect = defect.ok_or_else(|| format!("{name:?}: one of {DEFECTS:?}"))?;
                    wishes.plan.defect = Some(defect);
                }
                "--trace" => wishes.plan.trace = true,
                "--shrink" => wishes.shrink = true,
                _ => return Err(format!("{word} is not known")),
            }
        }
        Ok(wishes)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|e| format!("{text:?}: {e}"))
}

fn main() -> ExitCode {
    let wishes = match Wishes::parse(std::env::args().skip(1)) {
        Ok(wishes) => wishes,
        Err(wrong) => {
            eprintln!("simulate: {wrong}");
            return ExitCode::from(2);
        }
    };
    let outcome = if wishes.replay {
        replay(&wishes)
    } else {
        campaign(&wishes)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            if wishes.shrink {
                println!("\nthe smallest part that still fails:\n{}", shrink(failure));
            }
            ExitCode::FAILURE
        }
    }
}

fn replay(wishes: &Wishes) -> Result<(), Failure> {
    let lived = run(wishes.plan)?;
    println!("{}", lived.tally);
    println!(
        "{:>12} steps, digest {:016x}: every invariant held",
        lived.steps, lived.digest
    );
    Ok(())
}

fn campaign(wishes: &Wishes) -> Result<(), Failure> {
    let began = Instant::now();
    let campaign = Campaign {
        first: wishes.plan,
        operations: wishes.operations,
        jobs: wishes.jobs,
        every: Some(Duration::from_secs(10)),
    };
    let tally = campaign.run().map_err(|failure| *failure)?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{tally}");
    let operations = tally.of(Count::Operations);
    println!(
        "{operations} operations and {} crashes in {seconds:.1} s with {} jobs: every invariant held",
        tally.crashes(),
        wishes.jobs
    );
    let missing = tally.missing();
    if !missing.is_empty() && operations >= 1_000_000 {
        println!("never happened: {}", missing.join(", "));
    }
    Ok(())
}
