"""Feeds tests/tidy a tree with one violation at a time: each must be found, in the right file, and nothing else."""

import importlib.machinery
import importlib.util
import os
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def load_tidy():
    loader = importlib.machinery.SourceFileLoader("tidy", os.path.join(HERE, "tidy"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tidy", loader))
    loader.exec_module(module)
    return module


tidy = load_tidy()

MANIFEST = '[package]\nname = "x"\n[lints]\nworkspace = true\n'
# A small tree that breaks no rule and uses what looks like breaking one.
CLEAN = {
    "Cargo.toml": "[workspace]\n",
    "node/Cargo.toml": MANIFEST + "[dependencies]\nalexandria-sync.workspace = true\nsled = '1'\n",
    "node/src/lib.rs": "pub mod http;\npub mod library;\npub mod node;\n",
    "node/src/node.rs": "use crate::{http, jobs, library::Library, replication};\n",
    "node/src/store/tree.rs": "use sled::Db;\nfn f() { sled::open(); }\n",
    "node/src/library.rs": "use std::io;\n\nuse crate::{ingest, store::Store};\n",
    "node/src/ingest.rs": "#[cfg(test)]\nmod samples;\n",
    "node/src/ingest/samples.rs": "use crate::builtin;\n",
    "node/src/http/media.rs": (
        "use super::problem;\nuse crate::library::{self, Library};\n"
        "/// Like crate::jobs, see `crate::replication`.\n"
        "fn f<'a>(x: &'a str) { let _ = (\"crate::jobs::X\", 'j', r#\"sled::open\"#); } // quinn::Endpoint\n"
    ),
    "sync/src/quic.rs": "use quinn::Endpoint;\n",
    "sync/src/quic/pacing.rs": "use quinn_proto::congestion::Controller;\n",
    "cloud-bridge/src/content.rs": "use aws_sdk_s3::Client;\nuse sqlx::PgPool;\nuse alexandria_sync::hlc::Stamp;\n",
    "ml/src/lib.rs": "#[expect(clippy::float_cmp, reason = \"exact on purpose\")]\nfn f() { thread::sleep(LONG); }\n",
    "tests/src/deadline.rs": "fn f() { sleep(A_WHILE) }\n",
    "tests/bench/store/src/main.rs": "use sled::Db;\nfn f() { sleep(A_WHILE) }\n",
    "sync/fuzz/Cargo.toml": "[workspace]\n[dependencies]\nalexandria-sync = { path = '..' }\n",
    "sync/fuzz/src/lib.rs": "use alexandria_sync::record::Record;\n",
    "target-x/debug/util.rs": "todo!()\n",
}


def findings(changes):
    with tempfile.TemporaryDirectory() as root:
        for path, text in (CLEAN | changes).items():
            path = os.path.join(root, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return [(finding.path, finding.line, finding.rule) for finding in tidy.check(root)]


class Tidy(unittest.TestCase):
    def assert_finds(self, path, text, rule, line=1):
        self.assertEqual(findings({path: text}), [(path, line, rule)])

    def test_a_clean_tree_has_no_findings(self):
        self.assertEqual(findings({}), [])

    def test_crates_import_only_downwards(self):
        self.assert_finds("sync/src/a.rs", "use alexandria_api::page::Page;\n", "crates")
        self.assert_finds("ml/src/a.rs", "fn f() { alexandria_sync::hlc::now() }\n", "crates")
        self.assert_finds("cloud-bridge/src/a.rs", "use {alexandria_sync::id, alexandria_ml::colours};\n", "crates")
        manifest = MANIFEST + "[dev-dependencies]\nalexandria-node = { path = '../node' }\n"
        self.assert_finds("sync/Cargo.toml", manifest, "crates")
        self.assert_finds("gateway/Cargo.toml", MANIFEST, "crates")

    def test_renaming_a_dependency_does_not_hide_it(self):
        manifest = MANIFEST + "[dependencies]\ndb = { package = 'sled', version = '1' }\n"
        self.assert_finds("ml/Cargo.toml", manifest, "sled")

    def test_libraries_stay_where_they_belong(self):
        self.assert_finds("cloud-bridge/src/a.rs", "use quinn::Endpoint;\n", "quinn")
        self.assert_finds("sync/src/session.rs", "fn f() -> quinn::VarInt { todo }\n", "quinn")
        self.assert_finds("node/src/library/a.rs", "use aws_sdk_s3::Client;\n", "aws")
        self.assert_finds("node/src/library/a.rs", "\nuse ::sqlx::PgPool;\n", "sqlx", line=2)
        self.assert_finds("sync/src/store.rs", "use sled::Db;\n", "sled")
        self.assert_finds("node/Cargo.toml", MANIFEST + "[dependencies]\naws-config = '1'\n", "aws")

    def test_sled_is_used_in_one_file(self):
        self.assert_finds("node/src/store/zone.rs", "use sled::Tree;\n", "sled")

    def test_the_nodes_modules_import_in_one_direction(self):
        self.assert_finds("node/src/jobs.rs", "use crate::http::Problem;\n", "modules")
        self.assert_finds("node/src/http/a.rs", "use crate::{\n    library,\n    replication::Peer,\n};\n", "modules")
        self.assert_finds("node/src/replication.rs", "use super::jobs::Job;\n", "modules")
        self.assert_finds("node/src/ingest/epub.rs", "use crate::store::Store;\n", "modules")
        self.assert_finds("node/src/store.rs", "fn f() { crate::library::open() }\n", "modules")
        self.assert_finds("node/src/library/a.rs", "use super::super::node::Node;\n", "modules")
        self.assert_finds("node/src/gossip.rs", "fn f() {}\n", "modules")

    def test_file_names_say_something(self):
        self.assert_finds("ml/src/colours/mod.rs", "", "mod-rs")
        for path in ("ml/src/util.rs", "sync/src/common/a.rs", "node/src/http/helpers.rs", "tests/browser/Manager.mjs"):
            self.assert_finds(path, "", "name")

    def test_long_files_are_found(self):
        self.assert_finds("ml/src/a.rs", "\n" * 701, "length", line=701)
        self.assertEqual(findings({"ml/src/a.rs": "\n" * 700}), [])

    def test_unfinished_work_is_found(self):
        self.assert_finds("ml/src/a.rs", "fn f() { todo!() }\n", "unfinished")
        self.assert_finds("ml/src/a.rs", "fn f() {} // TODO: more\n", "unfinished")
        self.assert_finds("ml/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n", "unfinished", line=2)

    def test_exceptions_have_reasons(self):
        self.assert_finds("ml/src/a.rs", "#[allow(clippy::panic)]\nfn f() {}\n", "reason")

    def test_tests_do_not_sleep(self):
        self.assert_finds("tests/e2e/a.rs", "async fn f() { sleep(LONG).await }\n", "sleep")
        self.assert_finds("sync/tests/a.rs", "fn f() { std::thread::sleep(LONG) }\n", "sleep")
        unit = "fn f() { sleep(LONG) }\n#[cfg(test)]\nmod tests {\n    fn g() { if a { b } sleep(LONG) }\n}\n"
        self.assert_finds("ml/src/a.rs", unit, "sleep", line=4)
        self.assert_finds("node/src/ingest/samples.rs", "fn f() { sleep(LONG) }\n", "sleep")

    def test_a_line_may_be_allowed_with_a_reason_only(self):
        allowed = "// tidy-allow(sleep): the clock itself is tested\nfn f() { sleep(LONG) }\n"
        self.assertEqual(findings({"sync/tests/a.rs": allowed}), [])
        self.assert_finds("sync/tests/a.rs", "// tidy-allow(sleep):\nfn f() { sleep(LONG) }\n", "sleep", line=2)
        self.assert_finds("sync/tests/a.rs", "// tidy-allow(name): other\nfn f() { sleep(LONG) }\n", "sleep", line=2)

    def test_lock_files_hold_no_addresses(self):
        self.assert_finds("tests/browser/package-lock.json", '{\n "resolved": "x"\n}\n', "lock-file", line=2)

    def test_every_crate_takes_the_workspaces_lints(self):
        self.assert_finds("ml/Cargo.toml", '[package]\nname = "x"\n', "lints")


if __name__ == "__main__":
    unittest.main()
