#!/usr/bin/env bash
# Starts a training run on every host of a TPU slice and shows the log of host 0. The run does not depend on this
# terminal: Ctrl-C ends the log only. The same command continues a run that was stopped.
#
#   tpu_scripts/launch_all_hosts.sh --name=NAME --zone=ZONE --config=FILE --workdir=DIR [--project=P] [-- FLAG ...]
#
#   --name, --zone, --project   as in create_tpu_vm.sh
#   --config                    for example configs/stage1.py
#   --workdir                   gs://BUCKET/PATH; on a slice of one host a local folder works too
#   -- FLAG ...                 further flags of dig_jax.main, such as --config.model_path=models/...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' zone='' project='' config='' workdir=''
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --config=*) config=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    -h | --help) usage "$0"; exit 0 ;;
    --) shift; break ;;
    *) die "unknown argument '$1'; flags of dig_jax.main come after '--'; see --help" ;;
  esac
  shift
done
required --name "$name"
required --zone "$zone"
required --config "$config"
required --workdir "$workdir"
root=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
[ -e "$root/$config" ] || die "--config=$config: no such file in $root"
need_gcloud

command=".venv/bin/python -m dig_jax.main --distributed $(printf '%q ' "--config=$config" "--workdir=$workdir" "$@")"
echo "starting on every host of $name: $command"
on_workers "$name" "$zone" "$project" all "cd dig_jax
  if [ -e run.pid ] && kill -0 \"\$(cat run.pid)\" 2>/dev/null; then
    echo \"error: a run is under way on this host; to end it: kill \$(cat run.pid)\" >&2
    exit 1
  fi
  setsid nohup $command >run.log 2>&1 </dev/null &
  echo \$! >run.pid"
echo "the log of host 0 follows (dig_jax/run.log on every host); Ctrl-C leaves the run going"
on_workers "$name" "$zone" "$project" 0 "tail -n +1 -F dig_jax/run.log"
