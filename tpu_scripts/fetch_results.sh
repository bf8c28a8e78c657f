#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Copies what a run left behind to this machine: config, metrics, samples and report, and checkpoints when asked for.
#
#   tpu_scripts/fetch_results.sh --workdir=gs://BUCKET/PATH --out=DIR [--checkpoints] [--dry_run]
#   tpu_scripts/fetch_results.sh --workdir=PATH --out=DIR --name=NAME --zone=ZONE [--project=P] [--checkpoints]
#
#   --workdir                   of the run; a path without gs:// is on host 0, relative to its checkout
#   --out                       folder on this machine; files of the same name are replaced
#   --checkpoints               also the checkpoints: many gigabytes for a large model
#   --name, --zone, --project   as in create_tpu_vm.sh; only for a path on host 0
#   --dry_run                   print the commands and run nothing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= zone= project= workdir= out= checkpoints' "$@"
required workdir out
need_gcloud
if [[ $workdir == gs://* ]]; then
  exclude='^compile_cache/.*' # programs for the TPU
  [ -n "$checkpoints" ] || exclude="^checkpoints/.*|$exclude"
  run mkdir -p "$out"
  run gcloud storage rsync --recursive "--exclude=$exclude" "$workdir" "$out"
else
  required name zone # for a path on host 0
  where
  exclude=--exclude=./compile_cache
  [ -n "$checkpoints" ] || exclude+=' --exclude=./checkpoints'
  run mkdir -p "$out"
  pack="cd dig_jax && tar -C $(printf %q "$workdir") -cz $exclude ."
  if [ -n "$dry_run" ]; then
    echo "$(on_workers 0 "$pack") | $(run tar -C "$out" -xz)"
  else
    on_workers 0 "$pack" | tar -C "$out" -xz
  fi
fi
[ -n "$dry_run" ] || echo "fetched $workdir to $out; open $out/report.html"
