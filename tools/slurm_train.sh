#!/usr/bin/env bash
# Train under Slurm, with one torchrun on each node:
#   NODES=2 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION CONFIG [options of tools/train.py]
# The variable SRUN_ARGS holds options for srun. Two minutes before the job's time limit, Slurm
# interrupts the run, which writes a checkpoint and ends. The same command with --resume continues
# the run.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 PARTITION CONFIG [options of tools/train.py]" >&2
    exit 1
fi
partition=$1 config=$2
shift 2
nodes=${NODES:-1} gpus=${GPUS_PER_NODE:-8} port=${MASTER_PORT:-29500}
export nodes gpus port
# torchrun kills interrupted processes after 30 seconds, but a validation can take longer
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-100}
# shellcheck disable=SC2016,SC2086  # the node's shell expands the variables; SRUN_ARGS has several words
exec srun --partition="$partition" --nodes="$nodes" --ntasks-per-node=1 --gres="gpu:$gpus" \
    --cpus-per-task=$((gpus * ${CPUS_PER_GPU:-6})) --signal=INT@120 --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} bash -c '
        host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
        exec torchrun --nnodes="$nodes" --node-rank="$SLURM_NODEID" --nproc-per-node="$gpus" \
            --master-addr="$host" --master-port="$port" "$@"
    ' bash "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
