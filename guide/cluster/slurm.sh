#!/usr/bin/env bash
# One recipe on several hosts of a Slurm cluster: sbatch slurm.sh
# The folder this is started in must be on storage that all hosts share, with scratchlm installed in .venv.
#SBATCH --job-name=scratchlm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

recipe=${RECIPE:-gpt2-124m}
head_host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
source .venv/bin/activate

# One torchrun on each host starts a process per GPU. 120 s before the time limit Slurm sends them SIGTERM, and all ranks save;
# submit the same file again to continue. Since Slurm 22.05, srun gives a task one core unless it is asked for more again.
exec srun --kill-on-bad-exit=1 --cpus-per-task "$SLURM_CPUS_PER_TASK" torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head_host:29500" \
    --max-restarts 3 \
    -m scratchlm run "$recipe" --out "runs/$recipe"
