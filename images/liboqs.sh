#!/bin/sh
# liboqs as a shared library in /opt/oqs: liboqs-python's own documented installer, which downloads and builds it.
set -eu
apt-get update
apt-get install --yes --no-install-recommends git cmake ninja-build gcc libc6-dev libssl-dev
/opt/pip/bin/pip --python /opt/qbitel/bin/python install --no-cache-dir --quiet "liboqs-python>=0.14"
OQS_INSTALL_PATH=/opt/oqs /opt/qbitel/bin/python -c 'import oqs; print(oqs.oqs_version())'
