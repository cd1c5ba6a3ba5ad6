"""Tests that run side by side have one thread each: more would wait for each other.

A command that a test calls in its own process sets handlers of signals for good, as a command may. A process that a later test forks would have them too, and might not end when it is told to: they are taken away."""
import os, signal
import pytest
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1')   # before torch is imported; processes that a test starts inherit it

def pytest_xdist_auto_num_workers(config):
    "One more than there are cores: many tests wait for a process that they have started"
    return len(os.sched_getaffinity(0))+1 if hasattr(os, 'sched_getaffinity') else None

def unheeded():
    for k in 'SIGTERM','SIGHUP','SIGUSR1':
        if getattr(signal.getsignal(getattr(signal, k)), '__name__', '')=='terminate': signal.signal(getattr(signal, k), signal.SIG_DFL)

@pytest.fixture(autouse=True)
def no_handlers():
    unheeded()
    yield
    unheeded()
