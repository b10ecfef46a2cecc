#!/bin/sh
# What $BROWSER names: browser.py with the Python of the peers ($PEERS_PYTHON).
exec "$PEERS_PYTHON" "$(dirname "$0")/../browser.py" "$1"
