//! `testbed-link`: joins two network namespaces by a bad link, by hand.
//!
//! ```text
//! ip netns add a; ip netns add b
//! testbed-link a b --delay-ms 300 --loss-percent 1 --rate-mbit 10
//! ip netns exec a ping ADDRESS
//! ```
//!
//! Prints the addresses, stays until Ctrl-C or SIGTERM, then prints what crossed. Where the machine
//! cannot do it, says `skipped:` and why.

use std::{io, process::ExitCode, time::Duration};

use alexandria_e2e::{
    line::{CLEAN, Profile},
    link::{self, BadLink},
    namespace::Namespace,
    seed,
};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: testbed-link NAMESPACE NAMESPACE [--delay-ms N] [--loss-percent N] [--rate-mbit N]";

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(reason) = link::unavailable() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    let Some((a, b, profile)) = arguments(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match BadLink::between(&Namespace::existing(&a), &Namespace::existing(&b), profile, seed::seed()) {
        Ok(link) => {
            println!("up: {a} {:?}, {b} {:?}", link.addresses_of_a(), link.addresses_of_b());
            if let Err(error) = until_ended().await {
                eprintln!("wait for a signal: {error}");
            }
            println!("{a} to {b}: {:?}\n{b} to {a}: {:?}", link.a_to_b(), link.b_to_a());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("join {a} and {b}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Option<(String, String, Profile)> {
    let (a, b) = (given.next()?, given.next()?);
    let mut profile = CLEAN;
    while let Some(option) = given.next() {
        let value: f64 = given.next()?.parse().ok().filter(|value| *value >= 0.0)?;
        match option.as_str() {
            "--delay-ms" => profile.delay = Duration::from_secs_f64(value / 1e3),
            "--loss-percent" => profile.loss = value / 100.0,
            "--rate-mbit" => profile.rate_bits_per_s = Some((value * 1e6) as u64),
            _ => return None,
        }
    }
    Some((a, b, profile))
}

async fn until_ended() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
