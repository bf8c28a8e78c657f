#!/usr/bin/env bash
# shellcheck disable=SC2154  # read_options sets the options
# Installs this checkout on every host of a TPU slice: the committed files, an environment with jax[tpu], and any
# folders named with --copy. Run it again after a commit to update the hosts.
#
#   tpu_scripts/setup.sh --name=NAME --zone=ZONE [--project=P] [--copy=PATH,...] [--dry_run]
#
#   --name, --zone, --project   as in create_tpu_vm.sh
#   --copy                      files or folders inside this checkout that git does not hold, such as
#                               data/stage3,models/Qwen3-VL-4B-Thinking; each goes to the same place on every host
#   --dry_run                   print the commands and run nothing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

read_options 'name= zone= project= copy=' "$@"
required name zone
IFS=, read -ra copies <<<"$copy"
for path in ${copies[@]+"${copies[@]}"}; do
  in_checkout copy "$path"
done
need_gcloud
where
root=$(checkout)
[ -z "$(git -C "$root" status --porcelain)" ] || echo "note: uncommitted changes are not copied" >&2

archive=dig_jax.tar
if [ -z "$dry_run" ]; then
  archive=$(mktemp -d)/dig_jax.tar
  trap 'rm -rf "$(dirname "$archive")"' EXIT
fi
run git -C "$root" archive --format=tar --output="$archive" HEAD
[ ${#copies[@]} -eq 0 ] || run tar -C "$root" --append --file="$archive" "${copies[@]}"
run gzip --fast "$archive" # mostly pictures

[ -n "$dry_run" ] || echo "copying $(du -h "$archive.gz" | cut -f1) to every host of $name"
run gcloud compute tpus tpu-vm scp "$archive.gz" "$name:dig_jax.tar.gz" "${place[@]}" --worker=all
# Ubuntu 22.04, which TPU runtimes use, comes with Python 3.10 and has 3.11 as a package.
on_workers all "set -e
  mkdir -p dig_jax && tar -C dig_jax -xzf dig_jax.tar.gz && rm dig_jax.tar.gz && cd dig_jax
  sudo apt-get update -qq && sudo apt-get install -y -qq make python3.11 python3.11-venv
  make setup && .venv/bin/python -m pip install --quiet --editable '.[tpu]'"
echo "checking that all hosts see all chips"
on_workers all \
  "cd dig_jax && .venv/bin/python -c 'import jax; jax.distributed.initialize(); print(jax.process_index(), jax.devices())'"
echo "next: tpu_scripts/launch_all_hosts.sh --name=$name --zone=$zone${project:+ --project=$project}" \
  "--config=configs/stage1.py --workdir=gs://..."
