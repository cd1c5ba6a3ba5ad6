"Tests that run side by side have one thread each: more would wait for each other."
import os
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1')   # before torch is imported; processes that a test starts inherit it
