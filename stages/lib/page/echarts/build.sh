#!/bin/sh
# Build echarts.min.js from its package; needs npm. Run it in this folder. The same versions give the same bytes.
set -eu
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp charts.js "$work"
cd "$work"
npm install --no-save --no-audit --no-fund --ignore-scripts echarts@6.1.0 zrender@6.1.0 tslib@2.3.0 esbuild@0.28.2
npx esbuild charts.js --bundle --minify --format=iife --target=es2022 --legal-comments=none \
  --banner:js="$(cat "$here/banner.txt")" --outfile="$here/echarts.min.js"
cd "$here"
sha256sum echarts.min.js
