#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Deletes a TPU slice, and everything on its disks: fetch a workdir that is not in a bucket first (fetch_results.sh).
#
#   tpu_scripts/delete_tpu_vm.sh --name=NAME --zone=ZONE [--project=P] [--queued] [--yes] [--dry_run]
#
#   --name, --zone, --project   as in create_tpu_vm.sh
#   --queued                    the slice was asked for with --queued: delete the request together with its VMs
#   --yes                       do not ask
#   --dry_run                   print the command and run nothing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= zone= project= queued yes' "$@"
required name zone
need_gcloud
where

if [ -n "$queued" ]; then
  run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force ${yes:+--quiet}
else
  run gcloud compute tpus tpu-vm delete "$name" "${place[@]}" ${yes:+--quiet}
fi
