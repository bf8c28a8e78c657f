#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Creates a Cloud TPU slice. It costs money from the moment it is there until it is deleted.
#
#   tpu_scripts/create_tpu_vm.sh --name=NAME --zone=ZONE --type=TYPE [--spot] [--queued] [--valid_for=TIME]
#       [--version=V] [--project=P] [--dry_run]
#
#   --name       name of the slice, for the other scripts
#   --zone       a zone that has this type, for example europe-west4-b
#   --type       accelerator type: v4-32, v5litepod-16, v5p-32, v6e-16, ...
#   --spot       cheaper, and can be taken away at any time; keep_running.sh makes it anew and the run goes on
#   --queued     as a queued resource: the request waits until there are chips, and this command does not wait for it
#                (status.sh says how far it is). Without it the command fails when there are none at the moment
#   --valid_for  with --queued: give up waiting after this time, for example 6h
#   --version    runtime version; the default follows from the type
#   --project    Google Cloud project; default: gcloud's own
#   --dry_run    print the commands and run nothing
#
# Delete it with tpu_scripts/delete_tpu_vm.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= zone= type= spot queued valid_for= version= project=' "$@"
required name zone type
[ -z "$valid_for" ] || [ -n "$queued" ] || die "--valid_for=$valid_for is for --queued"
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
where

echo "creating $name: $type in $zone, runtime $version"
if [ -n "$queued" ]; then
  run gcloud compute tpus queued-resources create "$name" --node-id="$name" "${place[@]}" --accelerator-type="$type" \
    --runtime-version="$version" ${valid_for:+--valid-until-duration="$valid_for"} ${spot:+--spot} --async
  echo "next, when tpu_scripts/status.sh --name=$name --zone=$zone${project:+ --project=$project} --queued says ACTIVE:"
else
  run gcloud compute tpus tpu-vm create "$name" "${place[@]}" --accelerator-type="$type" --version="$version" \
    ${spot:+--spot}
  echo "next:"
fi
echo "  tpu_scripts/setup.sh --name=$name --zone=$zone${project:+ --project=$project}"
