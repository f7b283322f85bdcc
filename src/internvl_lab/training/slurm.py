"""SLURM: put the job back into the queue when it was told that its time is over.

`#SBATCH --signal=USR1@300` sends SIGUSR1 to every process of the job 300 s before its time limit. SIGTERM does not
requeue: `scancel` sends it too, and who cancels a job does not want it back; preemption requeues by itself.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

log = logging.getLogger(__name__)


def slurm_plugins() -> list[Any]:
    """Return the Trainer plugins that keep Lightning's own requeueing off; none outside SLURM.

    Lightning would save in the middle of a step, and prefer that file at the next start (`hpc_ckpt_*.ckpt`).
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def job_to_requeue() -> str | None:
    """Return this SLURM job's name for `scontrol`; None outside SLURM and in jobs named `bash` or `interactive`."""
    job = SLURMEnvironment.job_id()
    if job is None:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else str(job)


def requeue_job(signum: int) -> bool:
    """Put this job back into the queue if `signum` is SIGUSR1 and SLURM runs it; say whether that was done.

    A failure is logged and not raised: everything is saved, and a person can submit the job again.
    """
    job = job_to_requeue()
    if signum != signal.SIGUSR1 or job is None:
        return False
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("could not requeue SLURM job %s: %s; submit it again", job, error)
        return False
    if done.returncode != 0:
        log.warning("could not requeue SLURM job %s: %s; submit it again", job, done.stderr.strip())
        return False
    log.info("requeued SLURM job %s", job)
    return True
