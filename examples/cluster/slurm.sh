#!/bin/bash
# One run on two nodes of four GPUs, a process a GPU: sbatch examples/cluster/slurm.sh
# Slurm's variables tell the processes where to meet. A run whose node was lost is queued again and goes on.
# Each process must see all GPUs of its node, of which JAX gives it the one of its number: so --gpus-per-node, and not
# --gpus-per-task, which hides the others.
#SBATCH --job-name=jaxppo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# SIGTERM half a minute before the end: the segment is finished, saved, and goes on in the next job.
#SBATCH --signal=TERM@30

set -u
RUN_DIR=${RUN_DIR:-$HOME/runs/production}  # on a file system that all nodes see
resume=()
[ -f "$RUN_DIR/config.yaml" ] && resume=(--resume)
fields=(--preset production --n-envs 1048576)
[ ${#resume[@]} -gt 0 ] && fields=()

# Proxies between nodes make JAX's processes wait for each other in vain.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
srun --gpu-bind=none --kill-on-bad-exit=1 python -m jaxppo.train "${fields[@]}" --run-dir "$RUN_DIR" "${resume[@]}"
status=$?
# 75: another process is gone, or time is up.
if [ "$status" -eq 75 ] || [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
