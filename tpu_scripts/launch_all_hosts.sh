#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Starts a training run on every host of a TPU slice and shows the log of host 0. The run does not depend on this
# terminal: Ctrl-C ends the log only. The same command continues a run that was stopped.
#
#   tpu_scripts/launch_all_hosts.sh --name=NAME --zone=ZONE --config=FILE --workdir=DIR [--project=P] [--detach]
#       [--dry_run] [-- FLAG ...]
#
#   --name, --zone, --project   as in create_tpu_vm.sh
#   --config                    for example configs/stage1.py
#   --workdir                   gs://BUCKET/PATH; on a slice of one host a local folder works too
#   --detach                    do not show the log
#   --dry_run                   print the commands and run nothing
#   -- FLAG ...                 further flags of dig_jax.main, such as --config.model_path=models/...
#
# Each host keeps dig_jax/run.log, run.pid (the run's process group) and, at the end, run.exit (its exit code: 0 done,
# 75 saved and stopped, 76 lost another host, else failed). To stop a run, so that it saves: kill -TERM -- -$(cat run.pid) on one host.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= zone= project= config= workdir= detach --' "$@"
required name zone config workdir
in_checkout config "$config"
need_gcloud
where

command=".venv/bin/python -m dig_jax.main --distributed"
command+=$(printf ' %q' "--config=$config" "--workdir=$workdir" ${rest[@]+"${rest[@]}"})
echo "starting on every host of $name: $command"
# All hosts are asked before the first one starts: half a run would wait for the other half.
on_workers all "cd dig_jax
  if [ -e run.pid ] && [ ! -e run.exit ] && kill -0 \"\$(cat run.pid)\" 2>/dev/null; then
    echo \"error: a run is under way on this host; to end it: kill -TERM -- -\$(cat run.pid)\" >&2
    exit 1
  fi"
# The shell around the run outlives its signals, to write down its exit code.
on_workers all "cd dig_jax
  rm -f run.exit
  setsid nohup bash -c 'trap : TERM INT HUP
    $(printf '%s' "$command" | sed "s/'/'\\\\''/g") >run.log 2>&1
    echo \$? >run.exit.new && mv run.exit.new run.exit' >/dev/null 2>&1 </dev/null &
  echo \$! >run.pid"
if [ -z "$detach" ]; then
  echo "the log of host 0 follows (dig_jax/run.log on every host); Ctrl-C leaves the run going"
  on_workers 0 "tail -n +1 -F dig_jax/run.log"
fi
