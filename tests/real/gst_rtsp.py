"""A real RTSP server for tests: Debian's gst-rtsp-server, run by the system's Python, which has its bindings.

Serves /cam (and /sub with --sub) on 127.0.0.1 and prints `READY PORT` when it listens. Ended by SIGTERM or SIGKILL.

    gst_rtsp.py [--codec h264|h265] [--file MP4] [--size WxH] [--fps N] [--gop N] [--audio pcma|pcmu|aac]
                [--transport any|tcp|udp] [--auth basic|digest [--user NAME] [--password WORD]] [--tls PEM] [--sub]

With `--tls` (one file with key and certificate) it speaks rtsps only. A user name and a password go into the URL.
"""

import argparse
import sys

import gi

gi.require_version("Gio", "2.0")
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - versions are chosen before the import

ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=800 key-int-max={gop} ! video/x-h264,profile=main",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=800 key-int-max={gop}",
}

SOUNDS = {
    "pcma": "alawenc ! rtppcmapay name=pay1 pt=8",
    "pcmu": "mulawenc ! rtppcmupay name=pay1 pt=0",
    "aac": "voaacenc bitrate=32000 ! aacparse ! rtpmp4gpay name=pay1 pt=97",
}
SOUND_RATES_HZ = {"pcma": 8000, "pcmu": 8000, "aac": 16000}
TRANSPORTS = {
    "any": GstRtsp.RTSPLowerTrans.UDP | GstRtsp.RTSPLowerTrans.TCP,
    "tcp": GstRtsp.RTSPLowerTrans.TCP,
    "udp": GstRtsp.RTSPLowerTrans.UDP,
}


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0")
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--file", help="an MP4 to serve instead of a moving ball")
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--gop", type=int, default=15)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--sub", action="store_true", help="a second, small stream at /sub")
    parser.add_argument("--audio", choices=sorted(SOUNDS), help="a second track with a beep a second")
    parser.add_argument("--transport", choices=sorted(TRANSPORTS), default="any", help="what the server lets a client choose")
    parser.add_argument("--tls", metavar="PEM", help="key and certificate in one file")
    parser.add_argument("--auth", choices=["none", "basic", "digest"], default="none")
    parser.add_argument("--user", default="cam")
    parser.add_argument("--password", default="secret")
    return parser.parse_args()


def launch(given, size):
    payloader = f"rtp{given.codec}pay name=pay0 pt=96 config-interval=-1"
    if given.file:
        return f"( filesrc location={given.file} ! qtdemux ! {given.codec}parse ! {payloader} {sound(given)} )"
    width, height = size.split("x")
    raw = f"video/x-raw,format=I420,width={width},height={height},framerate={given.fps}/1"
    encoder = ENCODERS[given.codec].format(gop=given.gop)
    return f"( videotestsrc is-live=true pattern=ball ! {raw} ! {encoder} ! {given.codec}parse ! {payloader} {sound(given)} )"


def sound(given):
    if not given.audio:
        return ""
    raw = f"audio/x-raw,rate={SOUND_RATES_HZ[given.audio]},channels=1"
    return f"audiotestsrc is-live=true wave=ticks ! audioconvert ! audioresample ! {raw} ! {SOUNDS[given.audio]}"


def factory(given, size):
    made = GstRtspServer.RTSPMediaFactory()
    made.set_launch(launch(given, size))
    made.set_shared(True)
    made.set_protocols(TRANSPORTS[given.transport])
    return made


def protect(server, factories, given):
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    if given.tls:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(given.tls))
    token.set_string("media.factory.role", "user")
    if given.auth == "none":
        auth.set_default_token(token)
    elif given.auth == "basic":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(given.user, given.password), token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(given.user, given.password, token)
    server.set_auth(auth)
    role = "user,media.factory.access=(boolean)true,media.factory.construct=(boolean)true"
    for made in factories:
        made.add_role_from_structure(Gst.Structure.from_string(role)[0])


def main():
    given = options()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(given.port)
    mounts = {"/cam": factory(given, given.size)}
    if given.sub:
        mounts["/sub"] = factory(given, "160x120")
    if given.auth != "none" or given.tls:
        protect(server, mounts.values(), given)
    for path, made in mounts.items():
        server.get_mount_points().add_factory(path, made)
    if not server.attach(None):
        sys.exit("cannot bind")
    sys.stdout.write(f"READY {server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
