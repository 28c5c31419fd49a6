#!/bin/sh
# The Python of the image: a virtual environment with the package, at the versions that are tested.
#   setup.sh FOLDER EXTRAS     as in: deploy/docker/setup.sh /opt/pamola metrics,notebook
# It is what the Dockerfile runs, and what the tests run where there is no container engine.
set -eu

folder=$1
extras=$2
root=$(cd "$(dirname "$0")/../.." && pwd)

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# In the environment they also hold for what builds the package; newer pips want the second name.
export PIP_CONSTRAINT="$root/constraints.txt $root/deploy/docker/constraints.txt"
export PIP_BUILD_CONSTRAINT="$PIP_CONSTRAINT"

python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet "$root[$extras]"
"$folder/bin/python" -m pip check
"$folder/bin/python" -c 'import pamola_dwriter.plugin'
