//! Headless Chromium, driven by Playwright: `browser/drive.mjs` runs one scenario of `browser/scenarios/` on a page.
//!
//! A scenario is JavaScript, where a page is best described; what it found comes back as JSON.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{node::output, process::tests};

/// How long a scenario may take.
const DEADLINE: Duration = Duration::from_mins(2);

/// What a scenario found.
pub struct Visit {
    /// The checks by name, in order: true where they held.
    pub checks: Vec<(String, bool)>,
    /// The whole result: `checks` with details, `console`, `failedRequests`, `requests`, `screenshots`, `error`.
    pub result: Value,
}

/// What this machine lacks for a browser, if anything.
pub fn unavailable() -> Option<&'static str> {
    if !chromium().exists() {
        Some("a browser test needs Chromium (Debian package chromium)")
    } else if !tests().join("browser/node_modules/playwright-core").exists() {
        Some("a browser test needs playwright-core (tests/run installs it; it needs npm)")
    } else {
        None
    }
}

/// Runs a scenario against the site at `url`; screenshots and the result are left in `folder`.
///
/// # Panics
///
/// When the browser does not start or the driver breaks. A check that does not hold is for the test to judge.
pub async fn visit(scenario: &str, url: &str, folder: &Path) -> Visit {
    let mut command = Command::new("node");
    command.arg(tests().join("browser/drive.mjs"));
    command.args(["--scenario", scenario, "--url", url, "--chromium"]).arg(chromium());
    command.arg("--out").arg(folder).args(["--deadline-ms", &DEADLINE.as_millis().to_string()]);
    let output = output(command).await;
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("scenario {scenario} gave no result ({error}): {}", String::from_utf8_lossy(&output.stderr))
    });
    let checks = result["checks"].as_array().into_iter().flatten();
    let checks =
        checks.map(|check| (check["name"].as_str().unwrap_or_default().to_owned(), check["ok"] == true)).collect();
    Visit { checks, result }
}

impl Visit {
    /// Insists that the scenario came to its end, that every check held and that nothing else went wrong on the page.
    pub fn assert_good(&self) {
        let shown = || serde_json::to_string_pretty(&self.result).unwrap_or_default();
        assert!(!self.checks.is_empty(), "the scenario checked nothing: {}", shown());
        let all_held = self.checks.iter().all(|(_, held)| *held);
        let is_quiet = self.result["error"].is_null() && self.result["console"].as_array().is_some_and(Vec::is_empty);
        assert!(all_held && is_quiet, "{}", shown());
    }
}

/// The browser: `ALEXANDRIA_CHROMIUM`, or Debian's.
fn chromium() -> PathBuf {
    std::env::var_os("ALEXANDRIA_CHROMIUM").map_or_else(|| "/usr/bin/chromium".into(), PathBuf::from)
}
