//! Evidence for the choice of the node's record store: each scenario is one call of this program, so that
//! memory, panics and aborts belong to one engine and one scenario. `./run` calls them all.

mod crash;
mod damage;
mod engine;
mod load;
mod readers;
mod workload;

use engine::Answer;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "store-bench SCENARIO ENGINE DIR [RECORDS|ROUNDS|TO] [CACHE_MIB|SEED]
scenarios: fill scattered churn reopen rewrite single | kills kills-in-open | damage full-disk after-full-disk | readers";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[&str]) -> Answer<()> {
    let [scenario, engine, dir, rest @ ..] = args else {
        return Err(format!("{USAGE}\nengines: {}", engine::NAMES.join(" ")));
    };
    let dir = Path::new(dir);
    let number = |at: usize| rest.get(at).and_then(|n| n.parse::<u64>().ok()).ok_or_else(|| USAGE.to_owned());
    let cache = |at: usize| number(at).map(|mib| (mib as usize) << 20);
    match *scenario {
        "fill" => load::fill(engine, dir, number(0)?, cache(1)?, false),
        "scattered" => load::fill(engine, dir, number(0)?, cache(1)?, true),
        "churn" => load::churn(engine, dir, number(0)?, cache(1)?),
        "reopen" => load::reopen(engine, dir, cache(1)?),
        "rewrite" => load::rewrite(engine, dir, Path::new(rest.first().ok_or(USAGE)?), cache(1)?),
        "single" => load::single(engine, dir, number(0)?, cache(1)?),
        "write" => crash::write_forever(engine, dir),
        "check" => crash::check(engine, dir),
        "kills" => crash::rounds(engine, dir, number(0)? as u32, number(1)?, false),
        "kills-in-open" => crash::rounds(engine, dir, number(0)? as u32, number(1)?, true),
        "inspect" => damage::inspect(engine, dir),
        "damage" => damage::all(engine, dir, number(1)?),
        "full-disk" => damage::full_disk(engine, dir),
        "after-full-disk" => damage::after_full_disk(engine, dir),
        "readers" => readers::run(engine, dir),
        _ => Err(USAGE.to_owned()),
    }
}
