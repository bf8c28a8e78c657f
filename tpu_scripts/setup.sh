#!/usr/bin/env bash
# Installs this checkout on every host of a TPU slice: the committed files, an environment with jax[tpu], and any
# folders named with --copy. Run it again after a commit to update the hosts.
#
#   tpu_scripts/setup.sh --name=NAME --zone=ZONE [--project=P] [--copy=PATH ...]
#
#   --name, --zone, --project   as in create_tpu_vm.sh
#   --copy                      a file or folder inside this checkout that git does not hold, such as data/stage3 or
#                               models/Qwen3-VL-4B-Thinking; it goes to the same place on every host; repeatable
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name='' zone='' project='' copies=()
for argument in "$@"; do
  case "$argument" in
    --name=*) name=${argument#*=} ;;
    --zone=*) zone=${argument#*=} ;;
    --project=*) project=${argument#*=} ;;
    --copy=*) copies+=("${argument#*=}") ;;
    -h | --help) usage "$0"; exit 0 ;;
    *) die "unknown argument '$argument'; see --help" ;;
  esac
done
required --name "$name"
required --zone "$zone"
root=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
for path in ${copies[@]+"${copies[@]}"}; do
  case "$path" in /* | ../*) die "--copy=$path: expected a path inside the checkout, relative to it" ;; esac
  [ -e "$root/$path" ] || die "--copy=$path: $root/$path does not exist"
done
need_gcloud
[ -z "$(git -C "$root" status --porcelain)" ] || echo "note: uncommitted changes are not copied" >&2

archive=$(mktemp -d)/dig_jax.tar.gz
trap 'rm -rf "$(dirname "$archive")"' EXIT
git -C "$root" archive --format=tar HEAD >"${archive%.gz}"
if [ ${#copies[@]} -gt 0 ]; then
  tar -C "$root" --append --file="${archive%.gz}" "${copies[@]}"
fi
gzip "${archive%.gz}"

echo "copying $(du -h "$archive" | cut -f1) to every host of $name"
gcloud compute tpus tpu-vm scp "$archive" "$name:dig_jax.tar.gz" --zone="$zone" ${project:+--project="$project"} \
  --worker=all
# Ubuntu 22.04, which TPU runtimes use, comes with Python 3.10 and has 3.11 as a package.
on_workers "$name" "$zone" "$project" all "set -e
  mkdir -p dig_jax && tar -C dig_jax -xzf dig_jax.tar.gz && rm dig_jax.tar.gz && cd dig_jax
  sudo apt-get update -qq && sudo apt-get install -y -qq make python3.11 python3.11-venv
  make setup && .venv/bin/python -m pip install --quiet --editable '.[tpu]'"
echo "checking that all hosts see all chips"
on_workers "$name" "$zone" "$project" all \
  "cd dig_jax && .venv/bin/python -c 'import jax; jax.distributed.initialize(); print(jax.process_index(), jax.devices())'"
echo "next: tpu_scripts/launch_all_hosts.sh --name=$name --zone=$zone --config=configs/stage1.py --workdir=gs://..."
