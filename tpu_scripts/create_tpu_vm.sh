#!/usr/bin/env bash
# Creates a Cloud TPU slice. It costs money from now until it is deleted.
#
#   tpu_scripts/create_tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [--version=V] [--project=P] [--spot]
#
#   --name      name of the slice, for the other scripts
#   --zone      a zone that has this type, for example europe-west4-b
#   --type      accelerator type: v4-32, v5litepod-16, v5p-32, v6e-16, ...
#   --version   runtime version; the default follows from the type
#   --project   Google Cloud project; default: gcloud's own
#   --spot      cheaper, and can be taken away at any time; a run continues when it is launched again
#
# Delete it with: gcloud compute tpus tpu-vm delete NAME --zone=ZONE
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' zone='' type='' version='' project='' spot=''
for argument in "$@"; do
  case "$argument" in
    --name=*) name=${argument#*=} ;;
    --zone=*) zone=${argument#*=} ;;
    --type=*) type=${argument#*=} ;;
    --version=*) version=${argument#*=} ;;
    --project=*) project=${argument#*=} ;;
    --spot) spot=--spot ;;
    -h | --help) usage "$0"; exit 0 ;;
    *) die "unknown argument '$argument'; see --help" ;;
  esac
done
required --name "$name"
required --zone "$zone"
required --type "$type"
if [ -z "$version" ]; then
  case "$type" in
    v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    *) die "no runtime version is known for --type=$type; give one with --version=..." ;;
  esac
fi
need_gcloud

echo "creating $name: $type in $zone, runtime $version"
gcloud compute tpus tpu-vm create "$name" --zone="$zone" ${project:+--project="$project"} \
  --accelerator-type="$type" --version="$version" ${spot:+"$spot"}
echo "next: tpu_scripts/setup.sh --name=$name --zone=$zone${project:+ --project=$project}"
