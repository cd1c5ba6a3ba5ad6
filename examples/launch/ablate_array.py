"""An array of workers for one ablation, as SLURM jobs by submitit (`pip install -e ".[slurm]"`)

    python examples/launch/ablate_array.py 16 --hours 8 --gpus 1 path/to/images --rungs baseline,cosine,smooth --out /shared/ablations/first

What is not named here is `bot-ablate`'s own. Each job is one more worker of the folder, which all machines see. A job that is preempted or out of time is put into the queue again; its cell goes on where it was saved."""
import argparse, subprocess, sys

class Worker:
    "The command, as a job that may be queued again"
    def __init__(self, argv): self.argv = argv
    def __call__(self): return subprocess.run([sys.executable, '-m', 'bot', 'ablate', *self.argv]).returncode
    def checkpoint(self):
        from submitit.helpers import DelayedSubmission
        return DelayedSubmission(self)

def submitted(n, argv, out, cluster=None, hours=8, **kw):
    "The jobs of `n` workers; what they print stands in a folder beside the ablation"
    from submitit import AutoExecutor   # not at the top: `--help` does without
    executor = AutoExecutor(f'{out}-jobs', cluster=cluster)
    executor.update_parameters(timeout_min=60*hours, **{k:v for k,v in kw.items() if v is not None})
    worker = Worker([*argv, '--out', out, '--jobs', '1'])
    with executor.batch(): jobs = [executor.submit(worker) for _ in range(n)]
    return jobs

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument('n', type=int, help='Workers')
    p.add_argument('--out', required=True, help='Folder of the ablation, which all machines see')
    p.add_argument('--cluster', choices=['slurm','local','debug'], help='Unset, SLURM where it is there, else this machine')
    p.add_argument('--hours', type=int, default=8)
    p.add_argument('--gpus', type=int, help='Of each job')
    p.add_argument('--cpus', type=int, help='Of each job')
    p.add_argument('--partition')
    o,argv = p.parse_known_args()
    jobs = submitted(o.n, argv, o.out, o.cluster, o.hours, gpus_per_node=o.gpus, cpus_per_task=o.cpus, slurm_partition=o.partition)
    print(f'{len(jobs)} workers are queued: {jobs[0].job_id} and on; bot-ablate with the same words shows how far they are', flush=True)
    if o.cluster in ('local','debug'): sys.exit(max(job.result() for job in jobs))
