#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Queues a training run on a GPU cluster with Slurm: one process per GPU, on any number of nodes. A run that is preempted,
# or that comes near the end of its time, saves, and is queued again until it is done.
#
#   tpu_scripts/submit_slurm.sh --config=FILE --workdir=DIR [--nodes=N] [--gpus_per_node=N] [--time=TIME]
#       [--partition=P] [--account=A] [--name=NAME] [--requeues=N] [--dry_run] [-- FLAG ...]
#
#   --config         for example configs/stage1.py
#   --workdir        on a file system that all nodes share, or gs://BUCKET/PATH
#   --nodes          nodes of the cluster (default 1)
#   --gpus_per_node  GPUs of each, all of them used (default 8)
#   --time           longest time of one turn, as Slurm writes it (default 24:00:00); --grace seconds before its end the
#                    run is told to save
#   --grace          those seconds (default 600); at least config.checkpoint.grace_seconds
#   --partition, --account, --name   as of sbatch (name: default dig_jax)
#   --requeues       turns after the first, at most (default 100)
#   --dry_run        print the command and run nothing
#   -- FLAG ...      further flags of dig_jax.main, such as --config.model_path=models/...
#
# Run it on a login node, in a checkout that the nodes see at the same path, with its .venv made there (make setup, then
# .venv/bin/python -m pip install -e '.[cuda]'). The log of all turns is slurm-JOB.log in the checkout.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'config= workdir= nodes= gpus_per_node= time= grace= partition= account= name= requeues= --' "$@"
required config workdir
nodes=${nodes:-1} gpus_per_node=${gpus_per_node:-8} time=${time:-24:00:00} grace=${grace:-600} requeues=${requeues:-100}
for option in nodes gpus_per_node grace requeues; do
  whole_number "$option"
done
in_checkout config "$config"
need sbatch "this command is for a login node of a cluster with Slurm"

# --signal goes to the processes of the run themselves, not to the shell that waits for them.
run sbatch --job-name="${name:-dig_jax}" --nodes="$nodes" --gpus-per-node="$gpus_per_node" \
  --ntasks-per-node="$gpus_per_node" --exclusive --time="$time" --signal="TERM@$grace" --requeue \
  --open-mode=append --output=slurm-%j.log --chdir="$(checkout)" ${partition:+--partition="$partition"} \
  ${account:+--account="$account"} \
  tpu_scripts/slurm_job.sh --requeues="$requeues" --config="$config" --workdir="$workdir" -- ${rest[@]+"${rest[@]}"}
