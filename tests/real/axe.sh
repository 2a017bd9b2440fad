#!/bin/sh
# axe-core, by which a test looks for faults of accessibility: from npm, checked against its hash, into the folder named.
set -eu
into=$1/share/axe-core
version=4.14.1
sha256=e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745
if [ -f "$into/$version.js" ]; then
    echo "setup: axe-core is there"
elif ! command -v npm >/dev/null; then
    echo "setup: no npm, so the test that needs axe-core will be skipped"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    if (cd "$folder" && npm pack --silent --ignore-scripts "axe-core@$version" >/dev/null 2>&1) \
        && echo "$sha256  $folder/axe-core-$version.tgz" | sha256sum --check --status; then
        mkdir -p "$into"
        tar -xzOf "$folder/axe-core-$version.tgz" package/axe.min.js >"$folder/axe.js"
        mv "$folder/axe.js" "$into/$version.js"
        echo "setup: fetched axe-core"
    else
        echo "setup: axe-core could not be fetched as it should be, so the test that needs it will be skipped"
    fi
fi
