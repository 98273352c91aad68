"""Ends what a test process left behind, whichever way that process ended.

Started by the harness (tests/src/reaper.rs), which keeps standard input open for as long as it lives and writes a
line for each thing it makes:

    process PID START_TIME SIGNAL      ends with SIGNAL, with KILL after GRACE_S
    namespace NAME                     a network namespace
    folder PATH                        a folder of temporary files, named FOLDER_PREFIX...

Nothing happens until the input ends. What is already gone by then is passed over.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

GRACE_S = 5.0
FOLDER_PREFIX = "alexandria-test-"


def start_time(pid):
    """Clock ticks after boot at which the process started, or None once it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state == "Z" else int(started)


def send(pid, started, number):
    if start_time(pid) == started:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def reap(processes, namespaces, folders):
    for pid, started, name in processes:
        send(pid, started, getattr(signal, f"SIG{name}"))
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and any(start_time(pid) == started for pid, started, _ in processes):
        time.sleep(0.02)
    for pid, started, _ in processes:
        send(pid, started, signal.SIGKILL)
    for name in namespaces:
        if os.path.exists(f"/run/netns/{name}"):
            subprocess.run(["ip", "netns", "delete", name], check=False)
    for path in folders:
        if os.path.basename(path).startswith(FOLDER_PREFIX):
            shutil.rmtree(path, ignore_errors=True)


def main():
    processes, namespaces, folders = [], [], []
    for line in sys.stdin:
        kind, _, rest = line.rstrip("\n").partition(" ")
        if kind == "process":
            pid, started, name = rest.split()
            processes.append((int(pid), int(started), name))
        elif kind == "namespace":
            namespaces.append(rest)
        elif kind == "folder":
            folders.append(rest)
    reap(processes, namespaces, folders)


if __name__ == "__main__":
    main()
