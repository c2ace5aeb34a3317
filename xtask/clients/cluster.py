"""Helpers of the client programs: kubectl as an independent observer, and waiting with a deadline."""

import json
import subprocess
import time

# Longest wait for something that the cluster or the client does by itself.
PATIENCE = 60


def kubectl(*args, document=None):
    """Runs kubectl, which must succeed; its output."""
    done = subprocess.run(
        ["kubectl", *args], input=document, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode != 0:
        raise RuntimeError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def read(*args):
    """An object or a list as kubectl sees it."""
    return json.loads(kubectl("get", *args, "-o", "json"))


def eventually(what, check, alive=None):
    """Calls `check` until it returns something true; that. `alive` is a process that must not end."""
    end = time.monotonic() + PATIENCE
    last = None
    while time.monotonic() < end:
        try:
            last = check()
            if last:
                return last
        except (RuntimeError, KeyError, IndexError, OSError) as error:
            last = error
        if alive is not None and alive.poll() is not None:
            raise AssertionError(f"{what}: the program ended with {alive.returncode}")
        time.sleep(0.2)
    raise AssertionError(f"{what}: never, at last {last!r}")


def equal(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, not {wanted!r}")
