#!/bin/sh
# The real parts that tests start: an RTSP server, FFmpeg as an RTMP server, a browser, a web server, and strace, which makes a disk fail. Only root can install them; without them tests say what is missing.
set -eu
parts="python3-gi gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good
 gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-tools glib-networking ffmpeg chromium chromium-driver nginx strace"
if ! command -v apt-get >/dev/null; then
    echo "setup: not a Debian, so the tests that need an RTSP server, a browser, nginx or a failing disk will be skipped:" $parts
elif [ "$(dpkg-query --show --showformat='${db:Status-Status}\n' $parts 2>/dev/null | grep -cx installed)" = "$(echo $parts | wc -w)" ]; then
    echo "setup: the tests' RTSP server, browser, nginx and strace are installed"
elif [ "$(id -u)" != 0 ]; then
    echo "setup: not root, so the tests that need an RTSP server, a browser, nginx or a failing disk will be skipped; to have them:"
    echo "  sudo apt-get install --no-install-recommends" $parts
else
    echo "setup: installing the tests' RTSP server, browser, nginx and strace"
    nginx_before=$([ -x /usr/sbin/nginx ] && echo yes || echo no)
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $parts >/dev/null
    # Tests start one of their own; Debian's would take port 80.
    if [ "$nginx_before" = no ] && command -v systemctl >/dev/null; then systemctl disable --quiet --now nginx || true; fi
fi
