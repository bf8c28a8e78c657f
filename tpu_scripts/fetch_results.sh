#!/usr/bin/env bash
# Copies what a run left behind to this machine: config, metrics, samples and report, and checkpoints when asked for.
#
#   tpu_scripts/fetch_results.sh --workdir=gs://BUCKET/PATH --out=DIR [--checkpoints]
#   tpu_scripts/fetch_results.sh --workdir=PATH --out=DIR --name=NAME --zone=ZONE [--project=P] [--checkpoints]
#
#   --workdir                   of the run; a path without gs:// is on host 0, relative to its checkout
#   --out                       folder on this machine; files of the same name are replaced
#   --checkpoints               also the checkpoints: many gigabytes for a large model
#   --name, --zone, --project   as in create_tpu_vm.sh; only for a path on host 0
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' zone='' project='' workdir='' out='' checkpoints=''
for argument in "$@"; do
  case "$argument" in
    --name=*) name=${argument#*=} ;;
    --zone=*) zone=${argument#*=} ;;
    --project=*) project=${argument#*=} ;;
    --workdir=*) workdir=${argument#*=} ;;
    --out=*) out=${argument#*=} ;;
    --checkpoints) checkpoints=yes ;;
    -h | --help) usage "$0"; exit 0 ;;
    *) die "unknown argument '$argument'; see --help" ;;
  esac
done
required --workdir "$workdir"
required --out "$out"

if [[ $workdir == gs://* ]]; then
  need_gcloud
  exclude=()
  [ -n "$checkpoints" ] || exclude=(--exclude='^checkpoints/.*')
  mkdir -p "$out"
  gcloud storage rsync --recursive ${exclude[@]+"${exclude[@]}"} "$workdir" "$out"
else
  required "--name (for a path on host 0)" "$name"
  required "--zone (for a path on host 0)" "$zone"
  need_gcloud
  skip=''
  [ -n "$checkpoints" ] || skip=--exclude=./checkpoints
  mkdir -p "$out"
  on_workers "$name" "$zone" "$project" 0 "cd dig_jax && tar -C $(printf %q "$workdir") -cz $skip ." | tar -C "$out" -xz
fi
echo "fetched $workdir to $out; open $out/report.html"
