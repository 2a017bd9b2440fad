#!/bin/sh
# Called by `make install`: install.sh PYTHON PREFIX. Puts vigintd under PREFIX, the unit and an example in place; touches no existing configuration.
set -eu
python=$1 prefix=$2
here=$(cd "$(dirname "$0")/.." && pwd)
[ "$(id -u)" = 0 ] || { echo "install: needs root: sudo make install" >&2; exit 1; }

"$python" -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "vigintd needs Python 3.11 to 3.13; this is %d.%d. Try: make install PYTHON=/usr/bin/python3.11" % v)'
case $(realpath "$(command -v "$python")") in
    /home/* | /root/*) echo "install: $python lies in somebody's home, where the service may not look; try: make install PYTHON=/usr/bin/python3" >&2; exit 1 ;;
esac

"$python" -m venv "$prefix"
"$prefix/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$here/requirements.lock"
"$prefix/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$here"
ln -sf "$prefix/bin/vigintd" /usr/local/bin/vigintd

install -d -m 0755 /etc/vigintd
install -d -m 0700 /etc/vigintd/credentials
install -m 0644 "$here/vigintd.toml.example" /etc/vigintd/vigintd.toml.example
[ -e /etc/vigintd/vigintd.toml ] || install -m 0644 "$here/vigintd.toml.example" /etc/vigintd/vigintd.toml

install -d -m 0755 /etc/systemd/system
sed "s|/opt/vigintd/|$prefix/|" "$here/systemd/vigintd.service" >/etc/systemd/system/vigintd.service
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi

cat <<EOF
installed: $prefix/bin/vigintd and vigintd.service
next:
  1. edit /etc/vigintd/vigintd.toml: your cameras and your mail server
  2. write secrets as files that root alone can read, such as /etc/vigintd/credentials/mail__password
  3. vigintd check
  4. systemctl enable --now vigintd
EOF
