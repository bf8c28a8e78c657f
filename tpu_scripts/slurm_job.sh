#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# One turn of a training run under Slurm: the batch script that submit_slurm.sh queues; it is not started by hand.
#
#   tpu_scripts/slurm_job.sh --config=FILE --workdir=DIR --requeues=N [--dry_run] [-- FLAG ...]
#
#   --config, --workdir, -- FLAG ...   as in submit_slurm.sh
#   --requeues                         turns after the first, at most
#   --dry_run                          print the commands and run nothing
#
# The run is told to save by SIGTERM: from Slurm, when it is preempted or near the end of its time, or through this
# shell (scancel --full --signal=TERM JOB). It ends with 75 when it has saved, with 76 when a process of it was lost,
# and the job is then queued again.
set -euo pipefail
# Slurm runs a copy of this file that lies elsewhere; the working folder is the checkout.
source tpu_scripts/common.sh

read_options 'config= workdir= requeues= --' "$@"
required config workdir requeues
whole_number requeues

# srun ends with the highest code of its tasks: a failure (1, 2) has to be above the 76 of those that only noticed it.
# shellcheck disable=SC2016  # for the shell of the task
task='trap : TERM; "$@"; code=$?; [ "$code" != 1 ] && [ "$code" != 2 ] || code=$((code + 100)); exit "$code"'
# When all save, one process ends a little before another: that is no reason to kill the rest, but one that hangs is.
# Without --cpu-bind=none each process would have one core.
step=(srun --cpu-bind=none --kill-on-bad-exit=0 --wait=300 bash -c "$task" task .venv/bin/python -m dig_jax.main
  --distributed --config="$config" --workdir="$workdir" ${rest[@]+"${rest[@]}"})
if [ -n "$dry_run" ]; then
  run "${step[@]}"
  echo "# on exit codes 75 and 76:"
  # shellcheck disable=SC2016  # for the reader: Slurm sets it
  echo 'scontrol requeue $SLURM_JOB_ID'
  exit
fi

"${step[@]}" &
process=$!
told=''
trap 'told=yes; kill -TERM "$process" 2>/dev/null' TERM
code=0
wait "$process" || code=$?
while [ -n "$told" ] && [ "$code" -eq 143 ]; do # the signal ended the wait, not the run
  told='' code=0
  wait "$process" || code=$?
done
case "$code" in 101 | 102) code=$((code - 100)) ;; esac
if [ "$code" -eq 75 ] || [ "$code" -eq 76 ]; then
  turn=${SLURM_RESTART_COUNT:-0}
  if [ "$turn" -lt "$requeues" ]; then
    echo "stopped with code $code: queued again (turn $((turn + 2)))"
    scontrol requeue "$SLURM_JOB_ID"
  else
    echo "stopped with code $code, and --requeues=$requeues are used up: submit_slurm.sh with the same workdir goes on" >&2
  fi
fi
exit "$code"
