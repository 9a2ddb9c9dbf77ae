#!/bin/sh
# Puts locked packages (install.sh LOCK), or the project itself (install.sh --project), into /opt/qbitel: an environment
# without pip, its modules compiled, because nobody may write there later.
set -eu
pip="/opt/pip/bin/pip --python /opt/qbitel/bin/python"
if [ "$1" = --project ]; then
  /opt/pip/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --quiet --wheel-dir /wheel .
  $pip install --no-deps --no-compile --quiet /wheel/*.whl
  python3 -m compileall -q /opt/qbitel/lib
else
  python3 -m venv --without-pip /opt/qbitel
  $pip install --no-cache-dir --require-hashes --no-compile --only-binary :all: --quiet -r "$1"
fi
