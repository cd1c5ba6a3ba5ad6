"Tests that run side by side have one thread each: more would wait for each other."
import os
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1')   # before torch is imported; processes that a test starts inherit it

def pytest_xdist_auto_num_workers(config):
    "Many tests wait for a process that they have started: on two cores a third test runs meanwhile"
    n = os.cpu_count() or 1
    return n+1 if n<=2 else n
