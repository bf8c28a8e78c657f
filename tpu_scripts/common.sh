# Shared by the scripts beside it; not a command itself.
# shellcheck shell=bash

die() {
  echo "error: $*" >&2
  exit 2
}

# usage FILE: prints the comment at the top of a script, which is its help.
usage() {
  awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$1"
}

# required OPTION VALUE: ends with a message when the value is empty.
required() {
  [ -n "$2" ] || die "$1 is required; see --help"
}

need_gcloud() {
  command -v gcloud >/dev/null || die "gcloud is not on PATH; install the Google Cloud CLI and run 'gcloud init'"
}

# on_workers NAME ZONE PROJECT WORKER COMMAND: runs a command on one host ("0") or on every host ("all") of the slice.
on_workers() {
  gcloud compute tpus tpu-vm ssh "$1" --zone="$2" ${3:+--project="$3"} --worker="$4" --command="$5"
}
